"""What new tokens know of where they stand and what they read, made once for all layers that write."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from export.emit import Emit
from export.values import Value
from models.layers.rotary import waves
from models.shape import ModelShape

Turn = tuple[Value, Value]


class Reach:
    """New tokens (batch, new) behind `past` (1,) others; what nothing reads is in no graph.

    `mask` (batch, all), where there is one, holds 1 for tokens and 0 for padding of those written and to be written;
    `source_mask` (batch, source) that of an encoder's states. `places` (batch, new), where given, are the numbers of
    the new tokens, else they count what was written. With `alone` one token is new in every call, and reads all that
    was written: there is no mask then, and empty caches have the batch's rows, which those of some hosts have not.
    """

    def __init__(
        self,
        shape: ModelShape,
        emit: Emit,
        ids: Value,
        past: Value,
        *,
        mask: Value | None,
        source_mask: Value | None,
        places: Value | None,
        alone: bool = False,
    ) -> None:
        self.shape, self.emit = shape, emit
        self.new = emit.node("Shape", ids, role="new", start=1, end=2)
        self.every = emit.node("Add", past, self.new, role="every")  # (1,)
        first, self.one = emit.node("Squeeze", past, role="first"), self._number(1)
        self.index = self._counted(self._number(0), self.every, "index")  # (all,)
        self.readers = self._counted(first, self.every, "readers")  # (new,)
        self.past, self.given, self.alone = past, places, alone
        self.places = self._axes(self.readers, 0, role="places") if places is None else places
        across, down = self._axes(self.index, 0, role="index_across"), self._axes(self.readers, 1, role="readers_down")
        self.apart = emit.node("Sub", across, down, role="apart")  # (new, all), negative before the reader
        self.lowest = emit.constant(np.array(np.finfo(np.float32).min / 2, dtype=np.float32), "lowest")
        self.nothing = emit.constant(np.array(0, dtype=np.float32), "nothing")
        self.mask = None if alone else self._causal(mask)
        self.wide_mask = None if self.mask is None else self._axes(self.mask, 1, role="mask_by_group")
        self.source = None if source_mask is None else self._absent(source_mask, "source_mask")
        # As ONNX Runtime's own attention takes them.
        self.written = None if mask is None else emit.node("Cast", mask, role="written_tokens", to=TensorProto.INT32)
        self.source_tokens = (
            None if source_mask is None else emit.node("Cast", source_mask, role="source_tokens", to=TensorProto.INT32)
        )
        self.turns: dict[tuple[float, int], Turn] = {}
        self.splits: dict[int, Value] = {}

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
        """Return what is added to scores, (batch or 1, 1, new, all). Padding reads itself, as it would otherwise have
        nothing to read.
        """
        later = self.emit.node("Greater", self.apart, self._number(0), role="later")
        if mask is None:
            alone = self.emit.node("Where", later, self.lowest, self.nothing, role="causal")
            return self._axes(alone, 0, 1, role="mask")
        before = self.emit.node("Where", later, self.lowest, self._absent(mask, "written_mask"), role="before")
        itself = self.emit.node("Equal", self.apart, self._number(0), role="itself")
        return self.emit.node("Where", itself, self.nothing, before, role="mask")

    def _absent(self, mask: Value, role: str) -> Value:
        """Return (batch, 1, 1, time): nothing for tokens and a very low number for padding."""
        real = self.emit.node("Cast", mask, role=f"{role}_float", to=1)
        absent = self.emit.node(
            "Sub", self.emit.constant(np.array(1, dtype=np.float32), "one"), real, role=f"{role}_off"
        )
        rows = self.emit.node("Mul", absent, self.lowest, role=f"{role}_rows")
        return self._axes(rows, 1, 2, role=role)

    def _number(self, value: int) -> Value:
        return self.emit.constant(np.array(value, dtype=np.int64), f"number_{abs(value)}")

    def _counted(self, start: Value, end: Value, role: str) -> Value:
        """Return the numbers from `start` on, up to before `end` (1,)."""
        return self.emit.node("Range", start, self.emit.node("Squeeze", end, role=f"{role}_end"), self.one, role=role)

    def _axes(self, value: Value, *axes: int, role: str) -> Value:
        return self.emit.node("Unsqueeze", value, self.emit.integers(list(axes), f"{role}_axes"), role=role)
