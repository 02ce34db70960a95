"""Self-attention with as many heads as the layer has, time first."""

from __future__ import annotations

import math

import numpy as np

from export.emit import Emit, Places
from export.values import Value
from models.layers.attention import Attention, DistanceBias


def lower_attention(module: Attention, emit: Emit, hidden: Value, places: Places, reader: Value | None) -> Value:
    """Return (time, batch, hidden), or the output bias alone where no head is left.

    `hidden` is (time, batch, hidden). With `reader`, (1, batch, hidden), only the first token asks and gets an answer;
    `places` are then those of its distances.
    """
    if module.heads == 0:
        return emit.at("output").constant(module.output.bias, "bias")
    if reader is None:
        query, key, value = emit.children(module, ("query", "key", "value"), hidden)
    else:
        query = emit.child(module, "query", reader)
        key, value = emit.children(module, ("key", "value"), hidden)
    split = emit.integers([0, 0, module.heads, module.head_size], "by_head")
    heads = [
        emit.node("Reshape", part, split, role=f"{name}_heads")  # (time, batch, heads, size)
        for name, part in (("query", query), ("key", key), ("value", value))
    ]
    if module.rotary is not None:
        # The first place turns nothing.
        heads[0] = heads[0] if reader is not None else _turned(module, emit, heads[0], places, "query")
        heads[1] = _turned(module, emit, heads[1], places, "key")
    scores = _scores(module, emit, heads[0], heads[1])  # (batch, heads, time, time)
    if module.relative is not None:
        scores = emit.node("Add", scores, emit.child(module, "relative", places.distances), role="biased_scores")
    masked = scores if places.mask is None else emit.node("Add", scores, places.mask, role="masked_scores")
    shares = emit.node("Softmax", masked, role="shares", axis=-1)
    by_head = _context(emit, shares, heads[2])  # (batch, heads, time, size)
    turned = emit.node("Transpose", by_head, role="context_by_time", perm=[2, 0, 1, 3])
    joined = emit.integers([0, 0, module.heads * module.head_size], "joined")
    context = emit.node("Reshape", turned, joined, role="context")
    return emit.child(module, "output", context)


def lower_distance_bias(module: DistanceBias, emit: Emit, distances: Value) -> Value:
    """Return (heads, readers, time) for distances (readers, time) up to max_distance on both sides.

    What is beyond the last bucket's border is in the table once; negative distances count from its end. The heads of a
    distance lie together, so that one copy brings them all.
    """
    farthest = module.shape.max_distance
    table = emit.constant(module.by_distance(farthest + 1).roll(-farthest, 0), "by_distance")
    rows = emit.node("Gather", table, distances, role="by_place", axis=0)
    return emit.node("Transpose", rows, role="bias", perm=[2, 0, 1])


def _turned(module: Attention, emit: Emit, heads: Value, places: Places, name: str) -> Value:
    """Return heads (time, batch, heads, size) turned by their places: x * along + (x's halves exchanged) * across."""
    half = emit.integers([module.head_size // 2] * 2, "halves")
    first, second = emit.nodes("Split", heads, half, roles=(f"{name}_first", f"{name}_second"), axis=-1)
    exchanged = emit.node("Concat", second, first, role=f"{name}_exchanged", axis=-1)
    along = emit.node("Mul", heads, places.along, role=f"{name}_along")
    across = emit.node("Mul", exchanged, places.across, role=f"{name}_across")
    return emit.node("Add", along, across, role=f"{name}_turned")


def _scores(module: Attention, emit: Emit, query: Value, key: Value) -> Value:
    scale = 1 / math.sqrt(module.head_size)
    if emit.target.microsoft:
        # The product reads both operands where they lie, so nothing is transposed in memory.
        return emit.microsoft(
            "FusedMatMul", query, key, role="scores", alpha=scale, transB=1, transBatchA=1, transBatchB=1
        )
    left = emit.node("Transpose", query, role="query_turned", perm=[1, 2, 0, 3])
    right = emit.node("Transpose", key, role="key_turned", perm=[1, 2, 3, 0])
    product = emit.node("MatMul", left, right, role="product")
    return emit.node("Mul", product, emit.constant(np.array(scale, dtype=np.float32), "scale"), role="scores")


def _context(emit: Emit, shares: Value, value: Value) -> Value:
    if emit.target.microsoft:
        return emit.microsoft("FusedMatMul", shares, value, role="context_by_head", transBatchB=1)
    turned = emit.node("Transpose", value, role="value_turned", perm=[1, 2, 0, 3])
    return emit.node("MatMul", shares, turned, role="context_by_head")
