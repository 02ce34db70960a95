"""What turns hidden states into a task's output."""

from __future__ import annotations

from export.emit import Emit
from export.values import Value
from models.layers.heads import ClassificationHead, TokenHead


def lower_classification_head(module: ClassificationHead, emit: Emit, first: Value) -> Value:
    """Return logits (batch, labels) for the first token's states (batch, hidden)."""
    activated = emit.child(module, "activation", emit.child(module, "dense", first))
    return emit.child(module, "output", activated)


def lower_token_head(module: TokenHead, emit: Emit, hidden: Value) -> Value:
    """Return logits (batch, time, labels) for the states of tokens (time, batch, hidden)."""
    logits = emit.child(module, "output", hidden)
    return emit.node("Transpose", logits, role="logits_by_batch", perm=[1, 0, 2])
