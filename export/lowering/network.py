"""Blocks, and the whole network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from torch import Tensor

from export.emit import Emit, Places
from export.values import Value
from models.layers.rotary import waves
from models.network import Block, Network

ROLES = ("cosines", "sines")


def lower_block(module: Block, emit: Emit, hidden: Value, places: Places, first: Value | None) -> Value:
    """Return (time, batch, hidden), of all tokens, or of the first alone where `first` is given; `places` are those of
    what reads.

    Residual sums are the operator Sum: the runtime turns Add before LayerNormalization into SkipLayerNormalization,
    whose CPU kernel is several times slower than the two.
    """
    before = module.pre_norm and module.attention_norm is not None
    inner = emit.child(module, "attention_norm", hidden) if before else hidden
    reader = None if first is None else _first(emit, inner, "reader")
    kept = hidden if first is None else (reader if inner is hidden else _first(emit, hidden, "residual"))
    summed = emit.node("Sum", kept, emit.child(module, "attention", inner, places, reader), role="attended")
    if module.pre_norm:
        raised = emit.child(module, "ffn", emit.child(module, "ffn_norm", summed))
        return emit.node("Sum", summed, raised, role="output")
    normed = emit.child(module, "attention_norm", summed)
    return emit.child(module, "ffn_norm", emit.node("Sum", normed, emit.child(module, "ffn", normed), role="fed"))


def answer_of(module: Network, emit: Emit, hidden: Value, mask: Value | None) -> Value:
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


def states_of(module: Network, emit: Emit, mask: Value | None, *read: Value) -> Value:
    """Return the states after the last layer, (time, batch, hidden); of the first token alone where the head reads no
    other. `read` is what the embeddings read, and `mask` (batch, time) is given where there may be padding.

    Time comes first: attention's products then read queries, keys and values where the projections wrote them.
    """
    hidden = emit.child(module, "embeddings", *read)
    for index, places in enumerate(_places(module, emit, hidden, mask)):
        last = module.shape.reads_first and index == len(module.layers) - 1
        hidden = emit.child(module, f"layers.{index}", hidden, places, hidden if last else None)
    if module.final_norm is not None:
        hidden = emit.child(module, "final_norm", hidden)
    return hidden


def _places(module: Network, emit: Emit, hidden: Value, mask: Value | None) -> Iterator[Places]:
    """Yield for every layer what its attention knows of places, for states (time, batch, hidden) and mask (batch,
    time); what layers have in common is computed once.
    """
    shape = module.shape
    everywhere = None if mask is None else _mask_bias(emit, mask)
    length = emit.node("Shape", hidden, role="length", start=0, end=1)
    windows = sorted({layer.window for layer in shape.layers if layer.window is not None})
    apart = _apart(emit, length, shape.usable_positions) if windows or shape.relative else None
    masks: dict[int | None, Value | None] = {None: everywhere}
    distances = None
    if apart is not None:
        masks |= {window: _in_window(emit, everywhere, apart, window) for window in windows if everywhere is not None}
        distances = None if shape.relative is None else _clipped(emit, apart, shape.relative.max_distance)
    turns: dict[tuple[float, int], tuple[Value, Value]] = {}
    for index, layer in enumerate(shape.layers):
        along, across = None, None
        if layer.rotary is not None:
            key = (layer.rotary, layer.head_size)
            if key not in turns:
                turns[key] = _turn(emit, length, waves(shape.usable_positions, layer.head_size, layer.rotary))
            along, across = turns[key]
        places = Places(masks[layer.window], distances, along, across)
        if not shape.reads_first or index < len(shape.layers) - 1:
            yield places
            continue
        near = _first(emit, distances, "first_distances") if distances is not None else None
        row = places.mask
        if row is not None and layer.window is not None:
            row = _first(emit, row, "first_mask", axis=2)
        yield replace(places, mask=row, distances=near)


def _apart(emit: Emit, length: Value, places: int) -> Value:
    """Return (readers, time): how far behind each reader a token stands, negative where it stands before."""
    numbers = np.arange(places, dtype=np.int64)
    start, down, across = (emit.integers([number], role) for number, role in ((0, "start"), (0, "down"), (1, "across")))
    readers = emit.node("Slice", emit.constant(numbers[:, None], "readers"), start, length, down, role="reader_places")
    read = emit.node("Slice", emit.constant(numbers[None, :], "read"), start, length, across, role="read_places")
    return emit.node("Sub", read, readers, role="apart")


def _clipped(emit: Emit, apart: Value, most: int) -> Value:
    ends = [emit.constant(np.array(end, dtype=np.int64), role) for end, role in ((-most, "before"), (most, "behind"))]
    return emit.node("Clip", apart, *ends, role="distances")


def _in_window(emit: Emit, mask: Value, apart: Value, window: int) -> Value:
    """Return the mask (batch, 1, readers, time) of tokens that are at most `window` away; padding reads itself."""
    far = emit.node("Abs", apart, role="far")
    beyond = emit.node("Greater", far, emit.constant(np.array(window), "window"), role="beyond")
    near = emit.node("Where", beyond, _lowest(emit), mask, role="near")
    same = emit.node("Equal", apart, emit.constant(np.array(0), "nowhere"), role="same")
    return emit.node("Where", same, emit.constant(np.array(0, dtype=np.float32), "nothing"), near, role="window_bias")


def _turn(emit: Emit, length: Value, tables: tuple[Tensor, Tensor]) -> tuple[Value, Value]:
    """Return what turns the places of a text, both (time, 1, 1, size), the signs of the rotation in the second."""
    cosines, sines = (emit.constant(table[:, None, None, :], role) for table, role in zip(tables, ROLES, strict=True))
    start, axis = emit.integers([0], "start"), emit.integers([0], "axis")
    along = emit.node("Slice", cosines, start, length, axis, role="cosines_here")
    across = emit.node("Slice", sines, start, length, axis, role="sines_here")
    negative = emit.node("Neg", across, role="sines_negative")
    return (
        emit.node("Concat", along, along, role="along", axis=-1),
        emit.node("Concat", negative, across, role="across", axis=-1),
    )


def _first(emit: Emit, hidden: Value, role: str, *, axis: int = 0) -> Value:
    """Return (1, batch, hidden): the first token of (time, batch, hidden)."""
    return emit.node("Gather", hidden, emit.integers([0], "first"), role=role, axis=axis)


def _mask_bias(emit: Emit, mask: Value) -> Value:
    """Return (batch, 1, 1, time): nothing for a token, and less than any score for padding."""
    real = emit.node("Cast", mask, role="mask_float", to=1)
    absent = emit.node("Sub", emit.constant(np.array(1, dtype=np.float32), "one"), real, role="absent")
    bias = emit.node("Mul", absent, _lowest(emit), role="mask_rows")
    return emit.node("Unsqueeze", bias, emit.integers([1, 2], "head_and_query"), role="mask_bias")


def _lowest(emit: Emit) -> Value:
    """Return a number below any score, to which a score may be added."""
    return emit.constant(np.array(np.finfo(np.float32).min / 2, dtype=np.float32), "lowest")
