"""Blocks, and the whole network."""

from __future__ import annotations

import numpy as np

from export.emit import Emit
from export.values import Value
from models.network import Block, Network
from models.shape import RelativeBias


def lower_block(
    module: Block, emit: Emit, hidden: Value, mask: Value, distances: Value | None, first: Value | None
) -> Value:
    """Return (time, batch, hidden), of all tokens, or of the first alone where `first` is given. `distances` as in
    `_distances`.

    Residual sums are the operator Sum: the runtime turns Add before LayerNormalization into SkipLayerNormalization,
    whose CPU kernel is several times slower than the two.
    """
    inner = emit.child(module, "attention_norm", hidden) if module.pre_norm else hidden
    reader = None if first is None else _first(emit, inner, "reader")
    kept = hidden if first is None else (reader if inner is hidden else _first(emit, hidden, "residual"))
    apart = None if first is None or distances is None else _first(emit, distances, "first_distances")
    attended = emit.child(module, "attention", inner, mask, distances if apart is None else apart, reader)
    summed = emit.node("Sum", kept, attended, role="attended")
    if module.pre_norm:
        raised = emit.child(module, "ffn", emit.child(module, "ffn_norm", summed))
        return emit.node("Sum", summed, raised, role="output")
    normed = emit.child(module, "attention_norm", summed)
    return emit.child(module, "ffn_norm", emit.node("Sum", normed, emit.child(module, "ffn", normed), role="fed"))


def answer_of(module: Network, emit: Emit, hidden: Value, mask: Value) -> Value:
    """Return logits (batch, labels), of tokens (batch, time, labels), embeddings (batch, hidden), or hidden states
    (batch, time, hidden) without a head, for what `states_of` returns and the mask (batch, time).
    """
    if module.head is None:
        return by_batch(emit, hidden)
    if not module.shape.reads_first:
        return emit.child(module, "head", hidden, mask)
    first = emit.node("Gather", hidden, emit.constant(np.array(0, dtype=np.int64), "zero"), role="first", axis=0)
    return emit.child(module, "head", first, None)


def by_batch(emit: Emit, hidden: Value) -> Value:
    """Return (batch, time, hidden) for (time, batch, hidden)."""
    return emit.node("Transpose", hidden, role="hidden", perm=[1, 0, 2])


def states_of(module: Network, emit: Emit, ids: Value, mask: Value, kinds: Value | None) -> Value:
    """Return the states after the last layer, (time, batch, hidden); of the first token alone where the head reads no
    other. Arguments are (batch, time) whole numbers.

    Time comes first: attention's products then read queries, keys and values where the projections wrote them.
    """
    ids = emit.node("Transpose", ids, role="ids_by_time", perm=[1, 0])
    kinds = None if kinds is None else emit.node("Transpose", kinds, role="kinds_by_time", perm=[1, 0])
    hidden = emit.child(module, "embeddings", ids, kinds)
    bias = _mask_bias(emit, mask)
    relative = module.shape.relative
    distances = None if relative is None else _distances(emit, ids, module.shape.usable_positions, relative)
    for index, _ in enumerate(module.layers):
        last = module.shape.reads_first and index == len(module.layers) - 1
        hidden = emit.child(module, f"layers.{index}", hidden, bias, distances, hidden if last else None)
    if module.final_norm is not None:
        hidden = emit.child(module, "final_norm", hidden)
    return hidden


def _distances(emit: Emit, ids: Value, places: int, relative: RelativeBias) -> Value:
    """Return (readers, time) for ids (time, batch): how far each token is from each reader, from -max_distance to
    max_distance, plus max_distance.
    """
    numbers, most = np.arange(places, dtype=np.int64), relative.max_distance
    length = emit.node("Shape", ids, role="length", start=0, end=1)
    start, down, across = (emit.integers([number], role) for number, role in ((0, "start"), (0, "down"), (1, "across")))
    readers = emit.node("Slice", emit.constant(numbers[:, None], "readers"), start, length, down, role="reader_places")
    shifted = emit.constant(numbers[None, :] + most, "shifted")
    read = emit.node("Slice", shifted, start, length, across, role="shifted_places")
    apart = emit.node("Sub", read, readers, role="apart")
    ends = [
        emit.constant(np.array(end, dtype=np.int64), role) for end, role in ((0, "nearest"), (2 * most, "farthest"))
    ]
    return emit.node("Clip", apart, *ends, role="distances")


def _first(emit: Emit, hidden: Value, role: str) -> Value:
    """Return (1, batch, hidden): the first token of (time, batch, hidden)."""
    return emit.node("Gather", hidden, emit.integers([0], "first"), role=role, axis=0)


def _mask_bias(emit: Emit, mask: Value) -> Value:
    """Return (batch, 1, 1, time): nothing for a token, and less than any score for padding."""
    real = emit.node("Cast", mask, role="mask_float", to=1)
    absent = emit.node("Sub", emit.constant(np.array(1, dtype=np.float32), "one"), real, role="absent")
    lowest = emit.constant(np.array(np.finfo(np.float32).min / 2, dtype=np.float32), "lowest")
    bias = emit.node("Mul", absent, lowest, role="mask_rows")
    return emit.node("Unsqueeze", bias, emit.integers([1, 2], "head_and_query"), role="mask_bias")
