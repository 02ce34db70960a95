"""What turns hidden states into a task's output."""

from __future__ import annotations

from export.emit import Emit
from export.values import Value
from models.layers.heads import ClassificationHead


def lower_classification_head(module: ClassificationHead, emit: Emit, first: Value) -> Value:
    """Return logits (batch, labels) for the first token's states (batch, hidden)."""
    activated = emit.child(module, "activation", emit.child(module, "dense", first))
    return emit.child(module, "output", activated)
