"""Runs of a session whose inputs and outputs are arrays that stay where they are (IO binding)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, Final, final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float32]
Axes = tuple[int, ...]
LEAST_ROOM: Final = 1024  # numbers


@final
class Bound:
    """A session that is run on arrays again and again: only those that lie elsewhere than before are bound anew."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session, self._binding = session, session.io_binding()
        self._read = [port.name for port in (*session.get_inputs(), *session.get_overridable_initializers())]
        self._bound: dict[str, tuple[int, Axes]] = {}
        self._held: dict[str, Array] = {}

    def run(self, given: Mapping[str, Array], wanted: Mapping[str, Array]) -> None:
        """Run on those of the arrays `given` that the session reads, and let it write into those that are `wanted`;
        every call wants the same ones.
        """
        for name in self._read:
            self._bind(name, np.asarray(given[name], order="C"), self._binding.bind_input)
        for name, array in wanted.items():
            self._bind(name, array, self._binding.bind_output)
        self._session.run_with_iobinding(self._binding)

    def _bind(self, name: str, array: Array, bind: Callable[..., None]) -> None:
        place = array.__array_interface__["data"][0], array.shape
        if self._bound.get(name) != place:
            bind(name, "cpu", 0, array.dtype.type, array.shape, place[0])
            # Held, so that no other array of this shape comes to lie there.
            self._bound[name], self._held[name] = place, array


@final
class Buffers:
    """Arrays by name, made larger where they have to be."""

    def __init__(self) -> None:
        self._kept: dict[str, Floats] = {}

    def take(self, name: str, axes: Axes) -> Floats:
        """Return an array of these axes; what was in it is lost."""
        self._kept[name] = _roomy(self._kept.get(name), prod(axes))
        return _view(self._kept[name], axes)


@final
class Room:
    """Two buffers that take turns, of which one is read while the other is written."""

    def __init__(self) -> None:
        self._now = np.empty(LEAST_ROOM, dtype=np.float32)
        self._other = np.empty(LEAST_ROOM, dtype=np.float32)

    def now(self, axes: Axes) -> Floats:
        """Return what was written last, an array of these axes."""
        return _view(self._now, axes)

    def other(self, axes: Axes) -> Floats:
        """Return an array of these axes to write into."""
        self._other = _roomy(self._other, prod(axes))
        return _view(self._other, axes)

    def turn(self) -> None:
        """Make what was written what is read."""
        self._now, self._other = self._other, self._now

    def taken(self, rows: NDArray[np.int64], axes: Axes) -> None:
        """Make these rows, in this order, of an array of these axes what is read."""
        np.take(self.now(axes), rows, axis=0, out=self.other((len(rows), *axes[1:])), mode="clip")
        self.turn()


def _roomy(buffer: Floats | None, numbers: int) -> Floats:
    """Return the buffer, or one with twice the room that is needed where it is too small."""
    if buffer is not None and len(buffer) >= numbers:
        return buffer
    return np.empty(max(LEAST_ROOM, 2 * numbers), dtype=np.float32)


def _view(buffer: Floats, axes: Axes) -> Floats:
    return buffer[: prod(axes)].reshape(axes)
