"""Self-attention with as many heads as the layer has, time first: over all tokens, in blocks of a window, or linear."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from export.emit import Emit, Places
from export.values import Value
from models.layers.attention import LEAST_TOTAL, Attention, DistanceBias


class Heads(NamedTuple):
    """Query (readers, batch, heads, size), and key and value (time, batch, heads, size); in blocks with the number of
    the block as second axis.
    """

    query: Value
    key: Value
    value: Value


def lower_attention(module: Attention, emit: Emit, hidden: Value, places: Places, reader: Value | None) -> Value:
    """Return (time, batch, hidden), or the output bias alone where no head is left.

    `hidden` is (time, batch, hidden). With `reader`, (readers, batch, hidden), only these tokens ask and get an answer;
    `places` are then those of what reads.
    """
    if module.heads == 0:
        return emit.at("output").constant(module.output.bias, "bias")
    if reader is None:
        query, key, value = emit.children(module, ("query", "key", "value"), hidden)
    else:
        query = emit.child(module, "query", reader)
        key, value = emit.children(module, ("key", "value"), hidden)
    split = emit.integers([0, 0, module.heads, module.head_size], "by_head")
    heads = Heads(
        *(
            emit.node("Reshape", part, split, role=f"{name}_heads")  # (time, batch, heads, size)
            for name, part in (("query", query), ("key", key), ("value", value))
        )
    )
    if module.linear:
        context = _summed(module, emit, heads, places, alone=reader is not None)
    else:
        heads = _turned(module, emit, heads, places, alone=reader is not None)
        gather = _everywhere if places.blocks is None else _in_window
        context = gather(module, emit, heads, places)
    return emit.child(module, "output", context)


def lower_distance_bias(module: DistanceBias, emit: Emit, distances: Value, blocks: Value | None) -> Value:
    """Return (heads, readers, time) for distances (readers, time) up to max_distance on both sides, or (blocks, 1,
    heads, readers, time) for those of `blocks`, (blocks, readers, time).

    What is beyond the last bucket's border is in the table once; negative distances count from its end. The heads of a
    distance lie together, so that one copy brings them all.
    """
    farthest = module.shape.max_distance
    table = emit.constant(module.by_distance(farthest + 1).roll(-farthest, 0), "by_distance")
    if blocks is None:
        rows = emit.node("Gather", table, distances, role="by_place", axis=0)
        return emit.node("Transpose", rows, role="bias", perm=[2, 0, 1])
    rows = emit.node("Gather", table, blocks, role="by_place", axis=0)
    turned = emit.node("Transpose", rows, role="bias", perm=[0, 3, 1, 2])
    return emit.node("Unsqueeze", turned, emit.integers([1], "batch"), role="bias_each")


def _everywhere(module: Attention, emit: Emit, heads: Heads, places: Places) -> Value:
    """Return what readers gather, (readers, batch, heads * size)."""
    scores = _scores(module, emit, heads)  # (batch, heads, readers, time)
    if places.distances is not None:
        bias = emit.child(module, "relative", places.distances, None)
        scores = emit.node("Add", scores, bias, role="biased_scores")
    by_head = _context(emit, _shares(emit, scores, places.mask), heads.value)  # (batch, heads, readers, size)
    return _joined(module, emit, by_head)


def _in_window(module: Attention, emit: Emit, heads: Heads, places: Places) -> Value:
    """Return what tokens gather from a window, (time, batch, heads * size)."""
    blocks = places.blocks
    assert blocks is not None
    cut = Heads(
        emit.node("Gather", heads.query, blocks.readers, role="query_blocks", axis=0),
        emit.node("Gather", heads.key, blocks.read, role="key_blocks", axis=0),
        emit.node("Gather", heads.value, blocks.read, role="value_blocks", axis=0),
    )
    scores = _scores(module, emit, cut, blocks=True)  # (blocks, batch, heads, block, stretch)
    if blocks.distances is not None:
        bias = emit.child(module, "relative", blocks.distances, blocks.distances)
        scores = emit.node("Add", scores, bias, role="biased_scores")
    by_head = _context(emit, _shares(emit, scores, blocks.mask), cut.value, blocks=True)
    turned = emit.node("Transpose", by_head, role="context_by_time", perm=[0, 3, 1, 2, 4])
    # (blocks, block, batch, heads, size) -> (blocks * block, batch, heads * size)
    batch = emit.node("Shape", heads.query, role="batch", start=1, end=2)
    width = emit.integers([module.heads * module.head_size], "width")
    sizes = emit.node("Concat", emit.integers([-1], "rows"), batch, width, role="sizes", axis=0)
    rows = emit.node("Reshape", turned, sizes, role="context_rows")
    first, axis = emit.integers([module.global_tokens], "local"), emit.integers([0], "axis")
    local = emit.node("Slice", rows, first, blocks.length, axis, role="context")
    if blocks.all_readers is None:
        return local
    asked = emit.node("Slice", heads.query, axis, first, axis, role="global_query")
    wide = _everywhere(module, emit, heads._replace(query=asked), blocks.all_readers)
    return emit.node("Concat", wide, local, role="context_of_both", axis=0)


def _summed(module: Attention, emit: Emit, heads: Heads, places: Places, *, alone: bool) -> Value:
    """Return what readers gather linearly, (readers, batch, heads * size): keys and values meet in one (size, size)
    for each head, whatever the length.
    """
    asked, offered = (_positive(emit, part, name) for name, part in (("query", heads.query), ("key", heads.key)))
    offered = emit.node("Mul", offered, places.present, role="key_present")
    total = emit.node("ReduceSum", offered, emit.integers([0], "time"), role="key_total", keepdims=1)
    product = emit.node("Mul", asked, total, role="query_by_total")
    summed = emit.node("ReduceSum", product, emit.integers([-1], "size"), role="divisor_sum", keepdims=1)
    least = emit.constant(np.array(LEAST_TOTAL, dtype=np.float32), "least_total")
    divisor = emit.node("Add", summed, least, role="divisor")  # (readers, batch, heads, 1)
    asked = emit.node("Div", asked, divisor, role="query_divided")
    asked, offered, _ = _turned(module, emit, Heads(asked, offered, heads.value), places, alone=alone)
    if emit.target.microsoft:
        both = emit.microsoft(
            "FusedMatMul", offered, heads.value, role="sums", transA=1, transBatchA=1, transBatchB=1
        )  # (batch, heads, size, size)
        by_head = emit.microsoft("FusedMatMul", asked, both, role="context_by_head", transBatchA=1)
    else:
        left = emit.node("Transpose", offered, role="key_by_size", perm=[1, 2, 3, 0])
        right = emit.node("Transpose", heads.value, role="value_by_time", perm=[1, 2, 0, 3])
        both = emit.node("MatMul", left, right, role="sums")
        asking = emit.node("Transpose", asked, role="query_by_head", perm=[1, 2, 0, 3])
        by_head = emit.node("MatMul", asking, both, role="context_by_head")
    return _joined(module, emit, by_head)


def _positive(emit: Emit, heads: Value, name: str) -> Value:
    """Return elu(x) + 1, as e^min(x, 0) + max(x, 0): the runtime's Elu takes three times as long."""
    below = emit.node("Min", heads, emit.constant(np.array(0, dtype=np.float32), "zero"), role=f"{name}_below")
    above = emit.node("Relu", heads, role=f"{name}_above")
    return emit.node("Add", emit.node("Exp", below, role=f"{name}_power"), above, role=f"{name}_positive")


def _turned(module: Attention, emit: Emit, heads: Heads, places: Places, *, alone: bool) -> Heads:
    """Return heads with query and key turned by their places; where not all read, it is the first, whose place turns
    nothing.
    """
    if module.rotary is None:
        return heads
    query = heads.query if alone else _turn(module, emit, heads.query, places, "query")
    return heads._replace(query=query, key=_turn(module, emit, heads.key, places, "key"))


def _turn(module: Attention, emit: Emit, heads: Value, places: Places, name: str) -> Value:
    """Return heads (time, batch, heads, size) turned by their places: x * along + (x's halves exchanged) * across."""
    half = emit.integers([module.head_size // 2] * 2, "halves")
    first, second = emit.nodes("Split", heads, half, roles=(f"{name}_first", f"{name}_second"), axis=-1)
    exchanged = emit.node("Concat", second, first, role=f"{name}_exchanged", axis=-1)
    along = emit.node("Mul", heads, places.along, role=f"{name}_along")
    across = emit.node("Mul", exchanged, places.across, role=f"{name}_across")
    return emit.node("Add", along, across, role=f"{name}_turned")


def _scores(module: Attention, emit: Emit, heads: Heads, *, blocks: bool = False) -> Value:
    scale = 1 / math.sqrt(module.head_size)
    if emit.target.microsoft:
        # The product reads both operands where they lie, so nothing is transposed in memory.
        return emit.microsoft(
            "FusedMatMul", heads.query, heads.key, role="scores", alpha=scale, transB=1, transBatchA=1, transBatchB=1
        )
    left = emit.node("Transpose", heads.query, role="query_turned", perm=[1, 2, 3, 0, 4] if blocks else [1, 2, 0, 3])
    right = emit.node("Transpose", heads.key, role="key_turned", perm=[1, 2, 3, 4, 0] if blocks else [1, 2, 3, 0])
    product = emit.node("MatMul", left, right, role="product")
    return emit.node("Mul", product, emit.constant(np.array(scale, dtype=np.float32), "scale"), role="scores")


def _shares(emit: Emit, scores: Value, mask: Value | None) -> Value:
    masked = scores if mask is None else emit.node("Add", scores, mask, role="masked_scores")
    return emit.node("Softmax", masked, role="shares", axis=-1)


def _context(emit: Emit, shares: Value, value: Value, *, blocks: bool = False) -> Value:
    if emit.target.microsoft:
        return emit.microsoft("FusedMatMul", shares, value, role="context_by_head", transBatchB=1)
    turned = emit.node("Transpose", value, role="value_turned", perm=[1, 2, 3, 0, 4] if blocks else [1, 2, 0, 3])
    return emit.node("MatMul", shares, turned, role="context_by_head")


def _joined(module: Attention, emit: Emit, by_head: Value) -> Value:
    """Return (readers, batch, heads * size) for (batch, heads, readers, size)."""
    turned = emit.node("Transpose", by_head, role="context_by_time", perm=[2, 0, 1, 3])
    joined = emit.integers([0, 0, module.heads * module.head_size], "joined")
    return emit.node("Reshape", turned, joined, role="context")
