"""What attention knows of where tokens stand: masks, windows in blocks, distances and turns, made once for all layers.

A window's cost grows linearly with the text where its readers are taken in blocks: the readers of a block, at most as
many as the window reaches, read one stretch of the text, their block and what their windows reach on both sides (as
the sliding chunks of Longformer, Beltagy et al. 2020). A stretch is moved into the text where it would stick out, so
that a text of up to three windows is one stretch, and a short one is a block that reads itself: no more is computed
than by a mask. In blocks everything has the number of the block as second axis, behind the places in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from torch import Tensor

from export.emit import Blocks, Emit, Places
from export.values import Value
from models.layers.rotary import waves
from models.shape import EVERY_TOKEN, FIRST_TOKEN, LayerShape, ModelShape

# From four windows on blocks are faster than a mask, at 12 heads of 32 features: docs/decisions/0014.
MASKED_WINDOWS = 4
LEAST_BLOCK = 32  # readers of smaller blocks would make products too small to be fast
FARTHEST = 1 << 40  # farther than any token


def places_of(shape: ModelShape, emit: Emit, hidden: Value, mask: Value | None) -> Iterator[Places]:
    """Yield for every layer what its attention knows of places, for states (time, batch, hidden) and the mask (batch,
    time) if there may be padding; what layers have in common is computed once. Where the head reads few tokens, the
    last layer's are its own.
    """
    text = _Text(shape, emit, hidden, mask)
    made: dict[object, Places] = {}
    for index, layer in enumerate(shape.layers):
        readers = shape.readers if index == len(shape.layers) - 1 else EVERY_TOKEN
        key = (layer.window, layer.global_tokens, layer.linear, layer.rotary, layer.head_size, str(readers))
        if key not in made:
            # What reads alone but is not the first reads as if it stood anywhere.
            places = text.first(layer) if readers == FIRST_TOKEN else text.all(layer)
            made[key] = replace(places, readers=None if readers == EVERY_TOKEN else readers)
        yield made[key]


class _Text:
    """The text of a call; what nothing reads is in no graph."""

    def __init__(self, shape: ModelShape, emit: Emit, hidden: Value, mask: Value | None) -> None:
        self.shape, self.emit = shape, emit
        self.lowest = emit.constant(np.array(np.finfo(np.float32).min / 2, dtype=np.float32), "lowest")
        self.nothing = emit.constant(np.array(0, dtype=np.float32), "nothing")
        self.length = emit.node("Shape", hidden, role="length", start=0, end=1)
        self.tokens = emit.node("Squeeze", self.length, role="tokens")
        self.places = self.counted(self.tokens, "places")
        padded = mask is not None
        if mask is None:
            mask = self.axes(emit.node("Equal", self.places, self.places, role="every_token"), 0, role="every_row")
        real = emit.node("Cast", mask, role="mask_float", to=1)
        absent = emit.node("Sub", emit.constant(np.array(1, dtype=np.float32), "one"), real, role="absent")
        self.mask_rows = emit.node("Mul", absent, self.lowest, role="mask_rows")  # (batch, time)
        self.mask = emit.node("Unsqueeze", self.mask_rows, emit.integers([1, 2], "head_and_query"), role="mask_bias")
        self.of_all = self.mask if padded else None
        by_time = emit.node("Transpose", real, role="mask_by_time", perm=[1, 0])
        self.present = emit.node("Unsqueeze", by_time, emit.integers([2, 3], "head_and_size"), role="present")
        self.turns: dict[tuple[float, int], tuple[Value, Value]] = {}

    def number(self, value: int) -> Value:
        """Return a whole number."""
        return self.emit.constant(np.array(value, dtype=np.int64), f"number_{abs(value)}")

    def counted(self, end: Value, role: str) -> Value:
        """Return the numbers from 0 on, as many as `end` says."""
        return self.emit.node("Range", self.number(0), end, self.number(1), role=role)

    def axes(self, value: Value, *axes: int, role: str) -> Value:
        """Return a value with new axes of length 1."""
        return self.emit.node("Unsqueeze", value, self.emit.integers(list(axes), f"{role}_axes"), role=role)

    def all(self, layer: LayerShape) -> Places:
        """Return the places of a layer in which every token reads."""
        apart = self.apart(self.places, "places")
        distances = None if self.shape.relative is None or layer.linear else self.clipped(apart, "distances")
        places = replace(self.turned(layer), distances=distances)
        if layer.linear or layer.window is None:
            return places
        if self.shape.usable_positions > MASKED_WINDOWS * layer.window:
            return replace(places, distances=None, blocks=self.blocks(layer, layer.window))
        return replace(places, mask=self.in_window(layer, layer.window, apart))

    def first(self, layer: LayerShape) -> Places:
        """Return the places of a layer in which the first token alone reads."""
        apart = self.axes(self.places, 0, role="first_apart")  # (1, time)
        distances = None if self.shape.relative is None or layer.linear else self.clipped(apart, "first_distances")
        places = replace(self.turned(layer), distances=distances)
        if layer.window is None or layer.global_tokens:
            return places
        beyond = self.emit.node("Greater", apart, self.number(layer.window), role="first_beyond")
        near = self.emit.node("Where", beyond, self.lowest, self.mask, role="first_mask")
        return replace(places, mask=near)

    def turned(self, layer: LayerShape) -> Places:
        """Return the places of a layer without a window and a bias for distances."""
        if layer.rotary is None:
            return Places(self.of_all, self.present)
        key = (layer.rotary, layer.head_size)
        if key not in self.turns:
            self.turns[key] = self.turn(waves(self.shape.usable_positions, layer.head_size, layer.rotary))
        return Places(self.of_all, self.present, along=self.turns[key][0], across=self.turns[key][1])

    def turn(self, tables: tuple[Tensor, Tensor]) -> tuple[Value, Value]:
        """Return what turns the places, both (time, 1, 1, size), the signs of the rotation in the second."""
        emit = self.emit
        cosines, sines = (
            emit.constant(table[:, None, None, :], role)
            for table, role in zip(tables, ("cosines", "sines"), strict=True)
        )
        start, axis = emit.integers([0], "start"), emit.integers([0], "axis")
        along = emit.node("Slice", cosines, start, self.length, axis, role="cosines_here")
        across = emit.node("Slice", sines, start, self.length, axis, role="sines_here")
        negative = emit.node("Neg", across, role="sines_negative")
        return (
            emit.node("Concat", along, along, role="along", axis=-1),
            emit.node("Concat", negative, across, role="across", axis=-1),
        )

    def apart(self, readers: Value, role: str) -> Value:
        """Return (readers, time): how far behind each reader a token stands, negative where it stands before."""
        down = self.axes(readers, 1, role=f"{role}_down")
        return self.emit.node("Sub", self.axes(self.places, 0, role="across"), down, role=f"{role}_apart")

    def clipped(self, apart: Value, role: str) -> Value:
        """Return distances, cut to where a bias for them ends."""
        assert self.shape.relative is not None
        most = self.shape.relative.max_distance
        ends = (
            self.emit.constant(np.array(end, dtype=np.int64), name)
            for end, name in zip((-most, most), ENDS, strict=True)
        )
        return self.emit.node("Clip", apart, *ends, role=role)

    def seen(self, apart: Value, beyond: Value, mask: Value, role: str) -> Value:
        """Return the mask without what is beyond. Padding reads itself, or a reader far behind the text would have
        nothing to read.
        """
        near = self.emit.node("Where", beyond, self.lowest, mask, role=f"{role}_near")
        same = self.emit.node("Equal", apart, self.number(0), role=f"{role}_same")
        return self.emit.node("Where", same, self.nothing, near, role=f"{role}_mask")

    def in_window(self, layer: LayerShape, window: int, apart: Value) -> Value:
        """Return the mask (batch, 1, time, time) of a window."""
        emit = self.emit
        far = emit.node("Abs", apart, role="far")
        beyond = emit.node("Greater", far, self.number(window), role="beyond")
        if layer.global_tokens:
            behind = emit.node("GreaterOrEqual", self.places, self.number(layer.global_tokens), role="behind")
            local = self.axes(behind, 1, role="local_readers")
            both = emit.node("And", local, self.axes(behind, 0, role="local_read"), role="both_local")
            beyond = emit.node("And", beyond, both, role="beyond_all")
        return self.seen(apart, beyond, self.mask, "window")

    def blocks(self, layer: LayerShape, window: int) -> Blocks:
        """Return the places of a window in blocks."""
        emit = self.emit
        # With the global tokens a stretch is three windows again: products of 193 columns are 10 % slower than of 192.
        most = self.number(max(window - layer.global_tokens, LEAST_BLOCK))
        size = self.over(self.tokens, self.over(self.tokens, most, "blocks_wanted"), "block")
        numbers = self.counted(self.over(self.tokens, size, "blocks"), "block_numbers")
        firsts = emit.node("Mul", numbers, size, role="block_firsts")  # (blocks,)
        wide = emit.node("Add", size, self.number(2 * window), role="wide")
        stretch = emit.node("Min", wide, self.tokens, role="stretch")
        begin = emit.node("Sub", firsts, self.number(window), role="begin")
        latest = emit.node("Sub", self.tokens, stretch, role="latest")
        starts = emit.node("Min", emit.node("Max", begin, self.number(0), role="not_before"), latest, role="starts")
        readers = self.grid(firsts, self.counted(size, "in_block"), "readers")  # (blocks, block)
        read = self.grid(starts, self.counted(stretch, "in_stretch"), "read")  # (blocks, stretch)
        limit, wider = self.number(window), None
        if layer.global_tokens:
            read, limit = self.with_all_read(layer.global_tokens, read, limit, numbers)
            wider = self.all_readers(layer)
        across, down = self.axes(read, 1, role="read_across"), self.axes(readers, 2, role="readers_down")
        apart = emit.node("Sub", across, down, role="block_apart")  # (blocks, block, read)
        far = emit.node("Abs", apart, role="block_far")
        beyond = emit.node("Greater", far, limit, role="block_beyond")
        heard = emit.node("Gather", self.mask_rows, read, role="block_rows", axis=1)  # (batch, blocks, read)
        rows = emit.node("Transpose", heard, role="rows_by_block", perm=[1, 0, 2])
        mask = self.seen(
            self.axes(apart, 1, 2, role="apart_each"),
            self.axes(beyond, 1, 2, role="beyond_each"),
            self.axes(rows, 2, 3, role="rows_each"),
            "block",
        )  # (blocks, batch, 1, block, read)
        last = emit.node("Sub", self.tokens, self.number(1), role="last")
        return Blocks(
            readers=emit.node(
                "Transpose", emit.node("Min", readers, last, role="real"), role="block_readers", perm=[1, 0]
            ),
            read=emit.node("Transpose", read, role="block_read", perm=[1, 0]),
            mask=mask,
            length=self.length,
            distances=None if self.shape.relative is None else self.clipped(apart, "block_distances"),
            all_readers=wider,
        )

    def over(self, whole: Value, part: Value, role: str) -> Value:
        """Return whole / part, rounded up."""
        short = self.emit.node("Sub", part, self.number(1), role=f"{role}_short")
        raised = self.emit.node("Add", whole, short, role=f"{role}_raised")
        return self.emit.node("Div", raised, part, role=role)

    def grid(self, firsts: Value, steps: Value, role: str) -> Value:
        """Return (firsts, steps): their sums."""
        return self.emit.node("Add", self.axes(firsts, 1, role=f"{role}_from"), steps, role=role)

    def with_all_read(self, count: int, read: Value, limit: Value, numbers: Value) -> tuple[Value, Value]:
        """Return what blocks read, the global tokens first, and how far away each may be: anywhere for these, nowhere
        where a stretch has them once more.
        """
        emit = self.emit
        known = self.known(count)
        everywhere = self.grid(emit.node("Sub", numbers, numbers, role="zeros"), known, "everywhere")  # (blocks, count)
        again = emit.node("Less", read, self.number(count), role="again")
        near = emit.node("Where", again, self.number(-1), limit, role="near_limit")
        least = emit.node("Add", everywhere, self.number(FARTHEST), role="far_limit")
        limits = emit.node("Concat", least, near, role="limits", axis=1)
        return emit.node("Concat", everywhere, read, role="all_read", axis=1), self.axes(limits, 1, role="limit")

    def known(self, count: int) -> Value:
        """Return the places of the global tokens, fewer where the text is shorter."""
        return self.counted(self.emit.node("Min", self.tokens, self.number(count), role="globals"), "global_places")

    def all_readers(self, layer: LayerShape) -> Places:
        """Return the places of the global tokens as readers."""
        emit = self.emit
        apart = self.apart(self.known(layer.global_tokens), "global")
        same = emit.node("Equal", apart, self.number(0), role="global_same")
        mask = emit.node("Where", same, self.nothing, self.mask, role="global_mask")
        distances = None if self.shape.relative is None else self.clipped(apart, "global_distances")
        return replace(self.turned(layer), mask=mask, distances=distances)


ENDS = ("before", "behind")
