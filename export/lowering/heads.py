"""What turns hidden states into a task's output."""

from __future__ import annotations

import numpy as np

from export.emit import Emit
from export.values import Value
from models.kinds import Reads
from models.layers.heads import (
    LEAST_LENGTH,
    BoxHead,
    ClassificationHead,
    EmbeddingHead,
    NormedHead,
    Perceptron,
    PlainHead,
    Projection,
    TokenHead,
)


def lower_classification_head(module: ClassificationHead, emit: Emit, first: Value, _: Value | None) -> Value:
    """Return logits (batch, labels) for the first token's states (batch, hidden)."""
    activated = emit.child(module, "activation", emit.child(module, "dense", first))
    return emit.child(module, "output", activated)


def lower_normed_head(module: NormedHead, emit: Emit, hidden: Value, mask: Value | None) -> Value:
    """Return logits (batch, labels) for the first token's states (batch, hidden), or for those of all tokens (time,
    batch, hidden); of a head that answers each token (batch, time, labels).
    """
    read = _mean(emit, hidden, mask) if module.reads is Reads.MEAN and mask is not None else hidden
    activated = emit.child(module, "activation", emit.child(module, "dense", read))
    logits = emit.child(module, "output", emit.child(module, "norm", activated))
    if module.reads is not Reads.EACH:
        return logits
    return emit.node("Transpose", logits, role="logits_by_batch", perm=[1, 0, 2])


def lower_token_head(module: TokenHead, emit: Emit, hidden: Value, _: Value | None) -> Value:
    """Return logits (batch, time, labels) for the states of tokens (time, batch, hidden)."""
    logits = emit.child(module, "output", hidden)
    return emit.node("Transpose", logits, role="logits_by_batch", perm=[1, 0, 2])


def lower_plain_head(module: PlainHead, emit: Emit, hidden: Value, _: Value | None) -> Value:
    """Return logits (batch, labels) for the first token's states (batch, hidden), or for those of all tokens (time,
    batch, hidden).
    """
    if module.reads is Reads.FIRST:
        return emit.child(module, "output", hidden)
    ends = [
        emit.integers([number], role)
        for number, role in ((module.prefix, "prefix"), (np.iinfo(np.int64).max, "end"), (0, "time"))
    ]
    patches = emit.node("Slice", hidden, *ends, role="patches")
    return emit.child(module, "output", emit.node("ReduceMean", patches, role="mean", axes=[0], keepdims=0))


def lower_perceptron(module: Perceptron, emit: Emit, hidden: Value) -> Value:
    """Return (..., outputs) for states (..., hidden)."""
    for name in ("first", "second"):
        hidden = emit.child(module, "activation", emit.child(module, name, hidden))
    return emit.child(module, "output", hidden)


def lower_box_head(module: BoxHead, emit: Emit, hidden: Value, _: Value | None) -> tuple[Value, Value]:
    """Return logits (batch, suffix, labels + 1) and boxes (batch, suffix, 4) for the states of the tokens behind the
    patches, (suffix, batch, hidden).
    """
    turned = emit.node("Transpose", hidden, role="read_by_batch", perm=[1, 0, 2])
    logits = emit.child(module, "classes", turned)
    return logits, emit.node("Sigmoid", emit.child(module, "boxes", turned), role="pred_boxes")


def lower_embedding_head(module: EmbeddingHead, emit: Emit, hidden: Value, mask: Value | None) -> Value:
    """Return embeddings (batch, width) for the first token's states (batch, hidden) or, with the `mask` (batch, time),
    for those of all tokens (time, batch, hidden).
    """
    pooled = hidden if mask is None else _mean(emit, hidden, mask)
    pooled = pooled if module.projection is None else emit.child(module, "projection", pooled)
    if not module.normalized:
        return pooled
    length = emit.node("ReduceL2", pooled, role="length", axes=[-1], keepdims=1)
    least = emit.constant(np.array(LEAST_LENGTH, dtype=np.float32), "least_length")
    return emit.node("Div", pooled, emit.node("Max", length, least, role="divisor"), role="embedding")


def lower_projection(module: Projection, emit: Emit, read: Value) -> Value:
    """Return (batch, width) for (batch, hidden): in float, whatever the layers before it are in."""
    product = emit.node("MatMul", read, emit.constant(module.weight.t(), "weight"), role="product")
    return emit.node("Add", product, emit.constant(module.bias, "bias"), role="output")


def _mean(emit: Emit, hidden: Value, mask: Value) -> Value:
    real = emit.node("Cast", mask, role="mask_float", to=1)
    share = emit.node(
        "Div", real, emit.node("ReduceSum", real, emit.integers([1], "time"), role="tokens"), role="share"
    )
    row = emit.node("Unsqueeze", share, emit.integers([1], "row"), role="shares")  # (batch, 1, time)
    turned = emit.node("Transpose", hidden, role="hidden_by_batch", perm=[1, 0, 2])
    product = emit.node("MatMul", row, turned, role="mean")  # (batch, 1, hidden)
    return emit.node("Squeeze", product, emit.integers([1], "one"), role="pooled")
