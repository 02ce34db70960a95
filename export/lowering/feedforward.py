"""The position-wise feed-forward network."""

from __future__ import annotations

from export.emit import Emit
from export.values import Value
from models.layers.feedforward import FeedForward


def lower_feed_forward(module: FeedForward, emit: Emit, hidden: Value) -> Value:
    """Return down(activation(up(x))), with a gate down(activation(up(x)) * gate(x)), or what the output adds alone
    where no neuron is left.
    """
    if module.width == 0:
        return emit.alone(module, "down")
    if module.gate is None:
        return emit.child(module, "down", emit.child(module, "activation", emit.child(module, "up", hidden)))
    raised, gate = emit.children(module, ("up", "gate"), hidden)
    gated = emit.node("Mul", emit.child(module, "activation", raised), gate, role="gated")
    return emit.child(module, "down", gated)
