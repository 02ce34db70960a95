"""What the rows of a data set hold, and how it becomes what a network is called with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.imaging import Imaging

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Content(Protocol):
    """Rows of one kind, whose tokens lie one row after another."""

    def inputs(self, rows: Rows, tokens: Rows, mask: Mask) -> dict[str, Tensor]:
        """Return what a network reads of `rows`, by the names of its inputs. `tokens` are the places of their tokens,
        and `mask` (rows, time) says where these stand when rows are padded to the longest.
        """

    def taken(self, rows: Rows, tokens: Rows) -> Content:
        """Return these rows, whose tokens these are, in memory."""

    def joined(self, others: Sequence[Content]) -> Content:
        """Return these rows and after them those of others of the same kind, in memory."""


@final
@dataclass(frozen=True, eq=False)
class Pixels:
    """Images: `values` uint8 (n, channels, height, width), and how they are normalised."""

    values: npt.NDArray[np.uint8]
    imaging: Imaging

    def inputs(self, rows: Rows, tokens: Rows, mask: Mask) -> dict[str, Tensor]:
        """Return `pixel_values`, float32 (batch, channels, height, width)."""
        return {"pixel_values": torch.from_numpy(self.imaging.normalised(self.values[rows]))}

    def taken(self, rows: Rows, tokens: Rows) -> Pixels:
        """Return these rows in memory."""
        return Pixels(self.values[rows], self.imaging)

    def joined(self, others: Sequence[Content]) -> Pixels:
        """Return these rows and after them those of the others, in memory."""
        parts = [self, *(one for one in others if isinstance(one, Pixels))]
        return Pixels(np.concatenate([part.values for part in parts]), self.imaging)


@final
@dataclass(frozen=True, eq=False)
class Tokens:
    """Token numbers: `ids` int32 of all rows, one row after the other; `second` int32 (n), the place in its row where
    token type 1 starts, -1 where there is none.
    """

    ids: npt.NDArray[np.int32]
    second: npt.NDArray[np.int32]
    pad_token_id: int = 0

    def inputs(self, rows: Rows, tokens: Rows, mask: Mask) -> dict[str, Tensor]:
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
