"""What the rows of a data set hold, and how it becomes what a network is called with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.imaging import Imaging

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
MOVED = 8  # an image is shifted by up to this part of its size


class Moves(NamedTuple):
    """How images are moved: from how far left and above, as shares of them, each is seen, and whether it is mirrored
    then; (n,) each.
    """

    left: npt.NDArray[np.float64]
    above: npt.NDArray[np.float64]
    mirrored: Mask

    def of_boxes(self, objects: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return objects (n, most, 5), of which those whose kind is not negative have a box of centre, width and
        height, where they are then; what is cut off is no more, and nothing that was is of the kind -1.
        """
        centre = objects[..., 1:3] - np.stack([self.left, self.above], axis=1)[:, None]
        centre[..., 0] = np.where(self.mirrored[:, None], 1 - centre[..., 0], centre[..., 0])
        half = objects[..., 3:] / 2
        first, last = (centre - half).clip(0, 1), (centre + half).clip(0, 1)
        seen = (objects[..., :1] >= 0) & (last > first).all(axis=-1, keepdims=True)
        kinds = np.where(seen | np.isnan(objects[..., :1]), objects[..., :1], -1)
        boxes = np.concatenate([(first + last) / 2, last - first], axis=-1)
        moved: npt.NDArray[np.float32] = np.concatenate([kinds, np.where(seen, boxes, 0)], axis=-1).astype(np.float32)
        return moved


class Content(Protocol):
    """Rows of one kind, whose tokens lie one row after another."""

    def moves(self, rows: int) -> Moves | None:
        """Return how so many rows are moved this time, where they are."""

    def inputs(self, rows: Rows, tokens: Rows, mask: Mask, moves: Moves | None = None) -> dict[str, Tensor]:
        """Return what a network reads of `rows`, by the names of its inputs. `tokens` are the places of their tokens,
        and `mask` (rows, time) says where these stand when rows are padded to the longest. Images are seen as `moves`
        say.
        """

    def taken(self, rows: Rows, tokens: Rows) -> Content:
        """Return these rows, whose tokens these are, in memory."""

    def joined(self, others: Sequence[Content]) -> Content:
        """Return these rows and after them those of others of the same kind, in memory."""


@final
@dataclass(frozen=True, eq=False)
class Pixels:
    """Images: `values` uint8 (n, channels, height, width), and how they are normalised.

    With `moved` they are shifted by up to an eighth of their size, and half of them mirrored, anew whenever they are
    read; what happens is drawn from PyTorch's generator, which a training seeds for each step.
    """

    values: npt.NDArray[np.uint8]
    imaging: Imaging
    moved: bool = False

    def moves(self, rows: int) -> Moves | None:
        """Return places and mirrors of so many images; None where images stay as they are. This is what is usual for
        small images (He et al. 2016, section 4.2).
        """
        if not self.moved:
            return None
        height, width = self.values.shape[2:]
        down, across = height // MOVED, width // MOVED
        top, left = (torch.randint(0, 2 * most + 1, (rows,)).numpy() for most in (down, across))
        mirrored = torch.rand(rows).numpy() < 0.5
        return Moves((left - across) / width, (top - down) / height, mirrored)

    def inputs(self, rows: Rows, tokens: Rows, mask: Mask, moves: Moves | None = None) -> dict[str, Tensor]:
        """Return `pixel_values`, float32 (batch, channels, height, width)."""
        values = self.values[rows] if moves is None else _moved(self.values[rows], moves)
        return {"pixel_values": torch.from_numpy(self.imaging.normalised(values))}

    def taken(self, rows: Rows, tokens: Rows) -> Pixels:
        """Return these rows in memory."""
        return Pixels(self.values[rows], self.imaging, self.moved)

    def joined(self, others: Sequence[Content]) -> Pixels:
        """Return these rows and after them those of the others, in memory."""
        parts = [self, *(one for one in others if isinstance(one, Pixels))]
        return Pixels(np.concatenate([part.values for part in parts]), self.imaging)


def _moved(values: npt.NDArray[np.uint8], moves: Moves) -> npt.NDArray[np.uint8]:
    """Return images cut out of themselves with a black frame, at places of their own, some of them mirrored."""
    count, _, height, width = values.shape
    down, across = height // MOVED, width // MOVED
    framed = np.pad(values, ((0, 0), (0, 0), (down, down), (across, across)))
    top, left = (
        np.rint(part * size).astype(np.int64) + most
        for part, size, most in ((moves.above, height, down), (moves.left, width, across))
    )
    rows, columns = top[:, None] + np.arange(height), left[:, None] + np.arange(width)
    columns = np.where(moves.mirrored[:, None], columns[:, ::-1], columns)
    each = np.arange(count)[:, None, None]
    moved: npt.NDArray[np.uint8] = framed[each, :, rows[:, :, None], columns[:, None, :]].transpose(0, 3, 1, 2)
    return moved


@final
@dataclass(frozen=True, eq=False)
class Tokens:
    """Token numbers: `ids` int32 of all rows, one row after the other; `second` int32 (n), the place in its row where
    token type 1 starts, -1 where there is none.
    """

    ids: npt.NDArray[np.int32]
    second: npt.NDArray[np.int32]
    pad_token_id: int = 0

    def moves(self, rows: int) -> None:
        """Return None: texts are not moved."""

    def inputs(self, rows: Rows, tokens: Rows, mask: Mask, moves: Moves | None = None) -> dict[str, Tensor]:
        """Return `input_ids`, `attention_mask` (1 = token, 0 = padding on the right) and `token_type_ids`, each (batch,
        time) int64.
        """
        ids = np.full(mask.shape, self.pad_token_id, dtype=np.int64)
        ids[mask] = self.ids[tokens]
        second = self.second[rows][:, None]
        types = mask & (second >= 0) & (np.arange(mask.shape[1])[None, :] >= second)
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
            "token_type_ids": torch.from_numpy(types.astype(np.int64)),
        }

    def taken(self, rows: Rows, tokens: Rows) -> Tokens:
        """Return these rows, whose tokens these are, in memory."""
        return Tokens(self.ids[tokens], self.second[rows], self.pad_token_id)

    def joined(self, others: Sequence[Content]) -> Tokens:
        """Return these rows and after them those of the others, in memory."""
        parts = [self, *(one for one in others if isinstance(one, Tokens))]
        ids, second = (np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "second"))
        return Tokens(ids, second, self.pad_token_id)
