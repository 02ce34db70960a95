"""The position-wise feed-forward network."""

from __future__ import annotations

from export.emit import Emit
from export.values import Value
from models.layers.feedforward import FeedForward


def lower_feed_forward(module: FeedForward, emit: Emit, hidden: Value) -> Value:
    """Return down(activation(up(x))), or the output bias alone where no neuron is left."""
    if module.width == 0:
        return emit.at("down").constant(module.down.bias, "bias")
    raised = emit.child(module, "up", hidden)
    return emit.child(module, "down", emit.child(module, "activation", raised))
