"""What new tokens know of where they stand and what they read, made once for all layers that write."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from onnx import TensorProto

from export.emit import Emit
from export.values import Value
from models.layers.rotary import waves
from models.shape import ModelShape

Turn = tuple[Value, Value]


class Given(NamedTuple):
    """New tokens `ids` (batch, new) behind `past` (1,) others.

    `mask` (batch, all), where there is one, holds 1 for tokens and 0 for padding of those written and to be written;
    `source_mask` (batch, source) that of an encoder's states. `places` (batch, new), where given, are the numbers of
    the new tokens, else they count what was written.
    """

    ids: Value
    past: Value
    mask: Value | None = None
    source_mask: Value | None = None
    places: Value | None = None


class Reach:
    """What follows from what is given; what nothing reads is in no graph.

    With `alone` one token is new in every call, and reads all that was written: there is no mask then, and empty caches
    have the batch's rows, which those of some hosts have not.
    """

    def __init__(self, shape: ModelShape, emit: Emit, given: Given, *, alone: bool = False) -> None:
        self.shape, self.emit, self.given, self.alone = shape, emit, given, alone
        self.past = given.past
        self.new = emit.node("Shape", given.ids, role="new", start=1, end=2)
        self.every = emit.node("Add", given.past, self.new, role="every")  # (1,)
        self.turns: dict[tuple[float, int], Turn] = {}
        self.splits: dict[int, Value] = {}

    @cached_property
    def index(self) -> Value:
        """Return the numbers of all tokens, (all,)."""
        return self._counted(self._number(0), self.every, "index")

    @cached_property
    def readers(self) -> Value:
        """Return the numbers of the new tokens among all, (new,)."""
        return self._counted(self.emit.node("Squeeze", self.past, role="first"), self.every, "readers")

    @cached_property
    def places(self) -> Value:
        """Return the places of the new tokens, (batch or 1, new)."""
        return self._axes(self.readers, 0, role="places") if self.given.places is None else self.given.places

    @cached_property
    def apart(self) -> Value:
        """Return how far tokens are from readers, (new, all), negative before the reader."""
        across, down = self._axes(self.index, 0, role="index_across"), self._axes(self.readers, 1, role="readers_down")
        return self.emit.node("Sub", across, down, role="apart")

    @cached_property
    def mask(self) -> Value | None:
        """Return what is added to scores, (batch or 1, 1, new, all)."""
        return None if self.alone else self._causal(self.given.mask)

    @cached_property
    def wide_mask(self) -> Value | None:
        """Return the mask by groups of heads, (batch or 1, 1, 1, new, all)."""
        return None if self.mask is None else self._axes(self.mask, 1, role="mask_by_group")

    @cached_property
    def source(self) -> Value | None:
        """Return what is added to scores of an encoder's states, (batch, 1, 1, source)."""
        return None if self.given.source_mask is None else self._absent(self.given.source_mask, "source_mask")

    @cached_property
    def source_tokens(self) -> Value | None:
        """Return the mask of an encoder's states as ONNX Runtime's own attention takes it, (batch, source)."""
        mask = self.given.source_mask
        return None if mask is None else self.emit.node("Cast", mask, role="source_tokens", to=TensorProto.INT32)

    @cached_property
    def counts(self) -> tuple[Value, Value]:
        """Return as ONNX Runtime's attention of tokens behind others takes it, where one token is new, how many are
        before it in every row, (batch,), and how many all are, (1,).
        """
        emit = self.emit
        before = emit.node("Cast", self.past, role="before", to=TensorProto.INT32)
        rows = emit.node("Shape", self.given.ids, role="rows", start=0, end=1)
        every = emit.node("Cast", self.every, role="every_count", to=TensorProto.INT32)
        return emit.node("Expand", before, rows, role="before_each"), every

    def turn(self, base: float, size: int) -> Turn:
        """Return what turns heads (batch, new, heads, size), both (batch or 1, new, 1, size)."""
        key = (base, size)
        if key not in self.turns:
            tables = waves(self.shape.usable_positions, size, base)
            cosines, sines = (table.numpy() for table in tables)
            both = (np.concatenate([cosines, cosines], axis=-1), np.concatenate([-sines, sines], axis=-1))
            along, across = (
                self._axes(
                    self.emit.node(
                        "Gather", self.emit.constant(table, f"{name}_table"), self.places, role=f"{name}_at"
                    ),
                    2,
                    role=name,
                )
                for table, name in zip(both, ("along", "across"), strict=True)
            )
            self.turns[key] = (along, across)
        return self.turns[key]

    def distances(self) -> Value:
        """Return the distances (new, all), cut to where a bias for them ends."""
        assert self.shape.relative is not None
        most = self.shape.relative.max_distance
        return self.emit.node("Clip", self.apart, self._number(-most), self._number(most), role="distances")

    def by_reader(self, each: int) -> Value:
        """Return the axes (batch, heads of keys, each, new, all), as a Reshape takes them that cuts up each * new."""
        if each not in self.splits:
            front = self.emit.integers([0, 0, each], "front")
            self.splits[each] = self.emit.node("Concat", front, self.new, self.every, role="by_reader", axis=0)
        return self.splits[each]

    @property
    def by_group(self) -> Value:
        """Return the axes (batch, heads of keys, each * new, all), as `by_reader`."""
        front = self.emit.integers([0, 0, -1], "front_rows")
        return self.emit.node("Concat", front, self.every, role="by_group", axis=0)

    def _causal(self, mask: Value | None) -> Value:
        """Return the mask; padding reads itself, as it would otherwise have nothing to read."""
        later = self.emit.node("Greater", self.apart, self._number(0), role="later")
        if mask is None:
            alone = self.emit.node("Where", later, self._lowest, self._nothing, role="causal")
            return self._axes(alone, 0, 1, role="mask")
        before = self.emit.node("Where", later, self._lowest, self._absent(mask, "written_mask"), role="before")
        itself = self.emit.node("Equal", self.apart, self._number(0), role="itself")
        return self.emit.node("Where", itself, self._nothing, before, role="mask")

    @cached_property
    def _lowest(self) -> Value:
        return self.emit.constant(np.array(np.finfo(np.float32).min / 2, dtype=np.float32), "lowest")

    @cached_property
    def _nothing(self) -> Value:
        return self.emit.constant(np.array(0, dtype=np.float32), "nothing")

    def _absent(self, mask: Value, role: str) -> Value:
        """Return (batch, 1, 1, time): nothing for tokens and a very low number for padding."""
        real = self.emit.node("Cast", mask, role=f"{role}_float", to=1)
        absent = self.emit.node(
            "Sub", self.emit.constant(np.array(1, dtype=np.float32), "one"), real, role=f"{role}_off"
        )
        rows = self.emit.node("Mul", absent, self._lowest, role=f"{role}_rows")
        return self._axes(rows, 1, 2, role=role)

    def _number(self, value: int) -> Value:
        return self.emit.constant(np.array(value, dtype=np.int64), f"number_{abs(value)}")

    def _counted(self, start: Value, end: Value, role: str) -> Value:
        """Return the numbers from `start` on, up to before `end` (1,)."""
        stop = self.emit.node("Squeeze", end, role=f"{role}_end")
        return self.emit.node("Range", start, stop, self._number(1), role=role)

    def _axes(self, value: Value, *axes: int, role: str) -> Value:
        return self.emit.node("Unsqueeze", value, self.emit.integers(list(axes), f"{role}_axes"), role=role)
