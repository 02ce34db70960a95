"""Word, position and token-type vectors, time first, and of what is written batch first; and the way back to words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from export.emit import Emit
from export.reach import Reach
from export.values import Value
from models.layers.embeddings import Embeddings, SinusoidalPositions, WordOutput
from models.layers.quantized import QuantizedEmbedding


def lower_embedding(module: nn.Embedding | SinusoidalPositions, emit: Emit, indices: Value) -> Value:
    """Return rows (..., width) for whole numbers (...)."""
    return emit.node("Gather", emit.constant(module.weight, "weight"), indices, role="rows")


def lower_embeddings(module: Embeddings, emit: Emit, ids: Value, kinds: Value | None = None) -> Value:
    """Return (time, batch, hidden) for `ids` and token types `kinds`, both (batch, time)."""
    ids = emit.node("Transpose", ids, role="ids_by_time", perm=[1, 0])
    parts = [_scaled(module, emit, emit.child(module, "word", ids))]
    if module.position is not None:
        parts.append(_positions(module, module.position, emit, ids))
    if kinds is not None:
        by_time = emit.node("Transpose", kinds, role="kinds_by_time", perm=[1, 0])
        parts.append(emit.child(module, "token_type", by_time))
    return _finished(module, emit, parts)


def written_embeddings(module: Embeddings, emit: Emit, words: Value, reach: Reach) -> Value:
    """Return (batch, new, hidden) for rows of the word table `words` (batch, new, width) of the new tokens of `reach`.

    What is written is batch first: a step has one token of each text, and keys and values are kept by text.
    """
    parts = [_scaled(module, emit, words)]
    if isinstance(module.position, nn.Embedding | SinusoidalPositions) and reach.given.places is None:
        # They are behind one another: a stretch of the table.
        table = emit.at("position").constant(module.position.weight[module.position_offset :], "rows")
        stretch = (reach.past, reach.every, emit.integers([0], "axis"))
        parts.append(emit.node("Slice", table, *stretch, role="positions"))  # (new, hidden)
    elif module.position is not None:
        offset = emit.constant(np.array(module.position_offset, dtype=np.int64), "offset")
        places = reach.places
        rows = places if module.position_offset == 0 else emit.node("Add", places, offset, role="position_ids")
        parts.append(emit.child(module, "position", rows))
    return _finished(module, emit, parts)


def lower_word_output(module: WordOutput, emit: Emit, hidden: Value, table: Value | None) -> Value:
    """Return logits (batch, new, words) for states (batch, new, hidden); `table` (words, hidden) are the rows of the
    word table where these write.
    """
    if table is None:
        logits = emit.child(module, "projection", scaled_states(module, emit, hidden))
        return logits if module.bias is None else emit.node("Add", logits, _bias(module, emit), role="biased")
    flat = emit.node("Flatten", hidden, role="flat_states", axis=2)  # (batch * new, hidden)
    ends = [] if module.bias is None else [_bias(module, emit)]
    product = emit.node("Gemm", flat, table, *ends, role="flat_logits", alpha=module.scale, transB=1)
    before = emit.node("Shape", hidden, role="texts_and_tokens", start=0, end=2)
    sizes = emit.node("Concat", before, emit.integers([-1], "words"), role="sizes", axis=0)
    return emit.node("Reshape", product, sizes, role="logits")


def scaled_states(module: WordOutput, emit: Emit, hidden: Value) -> Value:
    """Return states as their product with the words takes them."""
    return hidden if module.scale == 1.0 else _times(emit, hidden, module.scale, role="scaled_states")


def _bias(module: WordOutput, emit: Emit) -> Value:
    assert module.bias is not None
    return emit.constant(module.bias, "bias")


def _scaled(module: Embeddings, emit: Emit, words: Value) -> Value:
    return words if module.scale == 1.0 else _times(emit, words, module.scale, role="scaled_words")


def _times(emit: Emit, value: Value, scale: float, *, role: str) -> Value:
    return emit.node("Mul", value, emit.constant(np.array(scale, dtype=np.float32), f"{role}_by"), role=role)


def _finished(module: Embeddings, emit: Emit, parts: Sequence[Value]) -> Value:
    """Return the sum, normalised and projected."""
    summed = parts[0] if len(parts) == 1 else emit.total(*parts, role="sum")
    normed = summed if module.norm is None else emit.child(module, "norm", summed)
    return normed if module.projection is None else emit.child(module, "projection", normed)


def _positions(module: Embeddings, table: nn.Module, emit: Emit, ids: Value) -> Value:
    """Return (time, 1, hidden): the table's rows from the offset on, as many as there are tokens."""
    part = emit.at("position")
    if isinstance(table, QuantizedEmbedding):
        rows = table.weight.float() * table.weight_scale[:, None]
    else:
        rows = table.get_parameter("weight").data if isinstance(table, nn.Embedding) else table.get_buffer("weight")
    length, usable = part.node("Shape", ids, role="length", start=0, end=1), rows[module.position_offset :]
    stretch = (part.integers([0], "first"), length, part.integers([0], "axis"))
    if isinstance(table, SinusoidalPositions):  # in a file with a decoder both have these numbers, which then are one
        flat = part.node("Slice", part.constant(usable, "weight"), *stretch, role="flat_rows")
        return part.node("Unsqueeze", flat, part.integers([1], "batch"), role="rows")
    return part.node("Slice", part.constant(usable[:, None, :], "weight"), *stretch, role="rows")
