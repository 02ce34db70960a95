"""A step of a layer that writes: new tokens read those before, whose keys and values are kept, and an encoder's states.

Batch first: (batch, new, width). A new token reads the keys and values of those before where they lie; nothing has as
many rows as there are tokens and as many columns too, unless so many are new.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from export.emit import Emit
from export.reach import Reach
from export.values import Value, whole
from models.block import Block
from models.layers.attention import Attention, DistanceBias
from models.layers.cross_attention import CrossAttention

PRESENT = ("context", "present_key", "present_value")  # what ONNX Runtime's attention gives


class Kept(NamedTuple):
    """Keys and values, both (batch, heads of keys, time, size)."""

    key: Value
    value: Value


class Memory(NamedTuple):
    """An encoder's states (batch, source, hidden), or where `cached` (1,) says so the keys and values of before."""

    states: Value
    cached: Value
    past: Kept


class Step(NamedTuple):
    """States of the new tokens, and what the next step is given."""

    hidden: Value
    own: Kept
    cross: Kept | None


def lower_step(
    module: Block, emit: Emit, hidden: Value, reach: Reach, past: Kept, memory: Memory | Kept | None
) -> Step:
    """Return the step of a causal layer for new tokens `hidden` (batch, new, hidden). Of an encoder's states, `memory`
    is all that a graph of one step is given, or what `remembered` made of them.
    """
    inner = _normed(module, emit, hidden, "attention_norm") if module.pre_norm else hidden
    attended, own = _attended(module.attention, emit.at("attention"), inner, reach, past)
    hidden = _summed(module, emit, hidden, attended, "attention_norm", role="attended")
    kept = None
    if module.cross is not None:
        inner = _normed(module, emit, hidden, "cross_norm") if module.pre_norm else hidden
        crossed, kept = _crossed(module.cross, emit.at("cross"), inner, reach, memory)
        hidden = _summed(module, emit, hidden, crossed, "cross_norm", role="crossed")
    inner = _normed(module, emit, hidden, "ffn_norm") if module.pre_norm else hidden
    return Step(_summed(module, emit, hidden, emit.child(module, "ffn", inner), "ffn_norm", role="fed"), own, kept)


def remembered(module: CrossAttention, emit: Emit, states: Value) -> Kept:
    """Return keys and values of an encoder's states (batch, source, hidden)."""
    split = emit.integers([0, 0, module.heads, module.head_size], "by_head")
    read = zip(("key", "value"), emit.children(module, ("key", "value"), states), strict=True)
    return Kept(*(_by_head(emit, emit.node("Reshape", part, split, role=f"{name}_heads"), name) for name, part in read))


def _normed(module: Block, emit: Emit, hidden: Value, name: str) -> Value:
    return hidden if getattr(module, name) is None else emit.child(module, name, hidden)


def _summed(module: Block, emit: Emit, hidden: Value, change: Value, name: str, *, role: str) -> Value:
    """Return the residual sum, by the operator Sum as in an encoder, normalised where norms stand after."""
    total = emit.node("Sum", hidden, change, role=role)
    return total if module.pre_norm else _normed(module, emit, total, name)


def _attended(module: Attention, emit: Emit, hidden: Value, reach: Reach, past: Kept) -> tuple[Value, Kept]:
    """Return what new tokens gather from those before and themselves, (batch, new, hidden), and the keys and values of
    all.
    """
    if module.heads == 0:
        return emit.alone(module, "output"), Kept(*_empty(emit, past.key, reach))
    read = emit.children(module, ("query", "key", "value"), hidden)
    if reach.alone and emit.target.microsoft and module.heads == module.key_heads and module.rotary is None:
        context, own = _at_once(module, emit, read, reach, past)
        return emit.child(module, "output", context), own
    counts = (module.heads, module.key_heads, module.key_heads)
    query, key, value = (
        emit.node("Reshape", part, emit.integers([0, 0, count, module.head_size], "by_head"), role=f"{name}_heads")
        for name, part, count in zip(("query", "key", "value"), read, counts, strict=True)
    )  # (batch, new, heads, size)
    if module.rotary is not None:
        turn = reach.turn(module.rotary, module.head_size)
        query, key = (_turned(module, emit, part, turn, name) for name, part in (("query", query), ("key", key)))
    own = Kept(
        *(
            emit.node("Concat", before, _by_head(emit, part, name), role=f"present_{name}", axis=2)
            for name, part, before in (("key", key, past.key), ("value", value, past.value))
        )
    )
    if module.heads == module.key_heads:
        context = _gathered(module, emit, _by_head(emit, query, "query"), own, _added(module, emit, reach))
    else:
        context = _in_groups(module, emit, query, own, reach)
    return emit.child(module, "output", _joined(module, emit, context)), own


def _at_once(module: Attention, emit: Emit, read: list[Value], reach: Reach, past: Kept) -> tuple[Value, Kept]:
    """Return what `_attended` does before the output projection where one token is new, by one operator: of a small
    network, a step costs about as much as it has nodes.
    """
    if module.relative is None:
        counts = {"num_heads": module.heads, "kv_num_heads": module.key_heads, "scale": _scale(module)}
        packed = whole(read)  # the operator takes apart by itself what was one product
        given = [packed, None, None] if packed is not None else read
        context, *own = emit.several_of_microsoft(
            "GroupQueryAttention", *given, *past, *reach.counts, roles=PRESENT, **counts
        )
        return context, Kept(*own)
    by_head = _bias(module.relative, emit.at("relative"), reach.distances(), (module.heads, 1))
    bias = emit.node("Unsqueeze", by_head, emit.integers([0], "axis"), role="bias")
    context, *own = _multi_head(module, emit, *read, None, None, bias, *past, roles=PRESENT)
    return context, Kept(*own)


def _multi_head(
    module: Attention | CrossAttention, emit: Emit, *inputs: Value | None, roles: tuple[str, ...]
) -> tuple[Value, ...]:
    """Return what ONNX Runtime's MultiHeadAttention gives for query (batch, new, width), keys and values as that or by
    head, no bias, a mask (batch, time), what is added to scores (1, heads, new, time), and keys and values of before.
    """
    return emit.several_of_microsoft(
        "MultiHeadAttention", *inputs, roles=roles, num_heads=module.heads, scale=_scale(module)
    )


def _empty(emit: Emit, past: Value, reach: Reach) -> tuple[Value, Value]:
    """Return keys and values of no heads, as long as what was written."""
    batch = emit.node("Shape", past, role="batch", start=0, end=2)
    size = emit.node("Shape", past, role="size", start=3, end=4)
    axes = emit.node("Concat", batch, reach.every, size, role="axes", axis=0)
    first, second = (emit.node("ConstantOfShape", axes, role=f"present_{name}") for name in ("key", "value"))
    return first, second


def _by_head(emit: Emit, heads: Value, name: str) -> Value:
    """Return (batch, heads, new, size) for (batch, new, heads, size)."""
    return emit.node("Transpose", heads, role=f"{name}_by_head", perm=[0, 2, 1, 3])


def _turned(module: Attention, emit: Emit, heads: Value, turn: tuple[Value, Value], name: str) -> Value:
    """Return heads (batch, new, heads, size) turned: x * along + (x's halves exchanged) * across."""
    half = emit.integers([module.head_size // 2] * 2, "halves")
    first, second = emit.nodes("Split", heads, half, roles=(f"{name}_first", f"{name}_second"), axis=-1)
    exchanged = emit.node("Concat", second, first, role=f"{name}_exchanged", axis=-1)
    along = emit.node("Mul", heads, turn[0], role=f"{name}_along")
    across = emit.node("Mul", exchanged, turn[1], role=f"{name}_across")
    return emit.node("Add", along, across, role=f"{name}_turned")


def _added(module: Attention, emit: Emit, reach: Reach) -> Value | None:
    """Return what is added to scores (batch, heads, new, all), if anything, or by groups with one more axis behind the
    heads.
    """
    each = module.heads // module.key_heads
    mask = reach.mask if each == 1 else reach.wide_mask
    if module.relative is None:
        return mask
    bias = _bias(module.relative, emit.at("relative"), reach.distances(), (module.key_heads, each))
    return bias if mask is None else emit.node("Add", bias, mask, role="added")


def _bias(module: DistanceBias, emit: Emit, distances: Value, groups: tuple[int, int]) -> Value:
    """Return (heads, new, all) for distances (new, all), or (heads of keys, each, new, all); the table's order is that
    of an encoder's.
    """
    farthest = module.shape.max_distance
    table = emit.constant(module.by_distance(farthest + 1).roll(-farthest, 0), "by_distance")
    rows = emit.node("Gather", table, distances, role="by_place", axis=0)
    if groups[1] == 1:
        return emit.node("Transpose", rows, role="bias", perm=[2, 0, 1])
    split = emit.node("Reshape", rows, emit.integers([0, 0, *groups], "groups"), role="by_group")
    return emit.node("Transpose", split, role="bias", perm=[2, 3, 0, 1])


def _in_groups(module: Attention, emit: Emit, query: Value, own: Kept, reach: Reach) -> Value:
    """Return what (batch, heads, new, size) gathers where queries share keys: the queries of a group are rows of one
    product, so that no key is copied or read twice.
    """
    each, size = module.heads // module.key_heads, module.head_size
    split = emit.node("Reshape", query, emit.integers([0, 0, module.key_heads, each, size], "groups"), role="groups")
    turned = emit.node("Transpose", split, role="by_group", perm=[0, 2, 3, 1, 4])
    rows = emit.node("Reshape", turned, emit.integers([0, 0, -1, size], "rows"), role="query_rows")
    scores = emit.node("Reshape", _scores(module, emit, rows, own.key), reach.by_reader(each), role="by_reader")
    added = _added(module, emit, reach)
    masked = scores if added is None else emit.node("Add", scores, added, role="masked_scores")
    shares = emit.node("Softmax", masked, role="shares", axis=-1)
    flat = emit.node("Reshape", shares, reach.by_group, role="shares_by_group")
    context = emit.node("MatMul", flat, own.value, role="context_by_group")  # (batch, heads of keys, each * new, size)
    # The heads of a group are behind one another, and so are the groups.
    sizes = emit.node("Concat", emit.integers([0, module.heads], "heads"), reach.new, role="one_head", axis=0)
    last = emit.node("Concat", sizes, emit.integers([size], "size"), role="by_head_axes", axis=0)
    return emit.node("Reshape", context, last, role="context_by_head")


def _gathered(module: Attention | CrossAttention, emit: Emit, query: Value, read: Kept, added: Value | None) -> Value:
    """Return what (batch, heads, new, size) gathers: softmax(query . key * scale + added) . value."""
    scores = _scores(module, emit, query, read.key)
    masked = scores if added is None else emit.node("Add", scores, added, role="masked_scores")
    shares = emit.node("Softmax", masked, role="shares", axis=-1)
    return emit.node("MatMul", shares, read.value, role="context_by_head")


def _scores(module: Attention | CrossAttention, emit: Emit, query: Value, key: Value) -> Value:
    scale = _scale(module)
    if emit.target.microsoft:
        return emit.microsoft("FusedMatMul", query, key, role="scores", alpha=scale, transB=1)
    # What is turned is the query and the scores, which are small, and not the keys.
    asked = emit.node("Transpose", query, role="query_turned", perm=[0, 1, 3, 2])
    product = emit.node("MatMul", key, asked, role="product")
    by_query = emit.node("Transpose", product, role="product_by_query", perm=[0, 1, 3, 2])
    return emit.node("Mul", by_query, emit.constant(np.array(scale, dtype=np.float32), "scale"), role="scores")


def _scale(module: Attention | CrossAttention) -> float:
    return 1 / math.sqrt(module.head_size) if module.scale is None else module.scale


def _joined(module: Attention | CrossAttention, emit: Emit, by_head: Value) -> Value:
    """Return (batch, new, heads * size) for (batch, heads, new, size)."""
    turned = emit.node("Transpose", by_head, role="context_by_time", perm=[0, 2, 1, 3])
    return emit.node(
        "Reshape", turned, emit.integers([0, 0, module.heads * module.head_size], "joined"), role="context"
    )


def _crossed(
    module: CrossAttention, emit: Emit, hidden: Value, reach: Reach, memory: Memory | Kept | None
) -> tuple[Value, Kept | None]:
    """Return what new tokens gather of an encoder's states, (batch, new, hidden), and the keys and values of these.

    Where they are not remembered they are computed in one branch, and in the other those of before are read where they
    lie; there, what is given out is empty, and nobody reads it.
    """
    if module.heads == 0 or memory is None:
        return emit.alone(module, "output"), None
    if emit.target.microsoft:
        gathered, crossing = _crossed_at_once(module, emit, hidden, reach, memory)
        return emit.child(module, "output", gathered), crossing
    split = emit.integers([0, 0, module.heads, module.head_size], "by_head")
    asked = emit.node("Reshape", emit.child(module, "query", hidden), split, role="query_heads")
    query = _by_head(emit, asked, "query")
    if isinstance(memory, Kept):
        gathered = _gathered(module, emit, query, memory, reach.source)
        return emit.child(module, "output", _joined(module, emit, gathered)), None
    key, value = remembered(module, emit, memory.states)
    context, *kept = emit.either(
        memory.cached,
        [_gathered(module, emit, query, memory.past, reach.source), *_unread(module, emit)],
        [_gathered(module, emit, query, Kept(key, value), reach.source), key, value],
        outside=[query, memory.states, *memory.past, *([] if reach.source is None else [reach.source])],
        roles=("context_by_head", "present_key", "present_value"),
    )
    return emit.child(module, "output", _joined(module, emit, context)), Kept(*kept)


def _crossed_at_once(
    module: CrossAttention, emit: Emit, hidden: Value, reach: Reach, memory: Memory | Kept
) -> tuple[Value, Kept | None]:
    """Return what `_crossed` does before the output projection, by one operator, or one in each branch."""
    query = emit.child(module, "query", hidden)
    if isinstance(memory, Kept):
        (alone,) = _multi_head(module, emit, query, *memory, None, reach.source_tokens, roles=("context",))
        return alone, None
    read = emit.children(module, ("key", "value"), memory.states)
    mask = reach.source_tokens
    context, *kept = emit.either(
        memory.cached,
        [*_multi_head(module, emit, query, *memory.past, None, mask, roles=PRESENT[:1]), *_unread(module, emit)],
        _multi_head(module, emit, query, *read, None, mask, roles=PRESENT),
        outside=[query, memory.states, *memory.past, *([] if mask is None else [mask])],
        roles=PRESENT,
    )
    return context, Kept(*kept)


def _unread(module: CrossAttention, emit: Emit) -> list[Value]:
    """Return no keys and no values: those of before stay where they are."""
    nothing = emit.constant(np.zeros((0, module.heads, 0, module.head_size), dtype=np.float32), "nothing")
    return [emit.node("Identity", nothing, role=f"no_{name}") for name in ("key", "value")]
