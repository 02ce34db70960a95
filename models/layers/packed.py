"""Weights in 4 bits, two values in a byte, and tables in 2 bits, four in a byte."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from models.kinds import Int8Form

LOWEST, HIGHEST = -8, 7
_SHIFTS = torch.arange(0, 8, 2, dtype=torch.uint8)
LLOYD_STEP = 0.9957  # of four levels, in standard deviations (Max 1960, table I)
CLIPS = 25  # scales that are tried for every row and sign
Levels = Callable[[Tensor, Tensor], Tensor]  # (values, scale) -> the nearest levels, in float32


def pack_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return 4-bit levels and one scale per row: (rows, width) -> uint8 (rows, ceil(width / 2)), float32 (rows,).

    On MiniLM's word table the squared error is 1.1 % of the variance; 1.8 % with plain -7..7, and 0.7 % with a scale
    for every 32 values, which takes half a bit more for each.
    """
    values = weight.detach().float()
    scale = row_scale(values, Int8Form.TABLE4)
    return pack(four_bit_levels(values, scale[:, None])), scale


def pack_rows_in_two_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return 2-bit levels and one scale per row: (rows, width) -> uint8 (rows, ceil(width / 4)), float32 (rows,).

    The squared error is 12 % of the variance of MiniLM's word table. That of the logits grows less than by cutting rare
    words into pieces: 0.38 to 0.41 for a student of SST-2's, 0.50 with half of the pieces dropped.
    """
    values = weight.detach().float()
    scale = row_scale(values, Int8Form.TABLE2)
    codes = (two_bit_levels(values, scale[:, None]) + 1.5).to(torch.uint8)
    codes = torch.nn.functional.pad(codes, (0, -codes.shape[1] % 4)).reshape(len(codes), -1, 4)
    return (codes << _SHIFTS).sum(dim=2, dtype=torch.uint8), scale


def row_scale(values: Tensor, form: Int8Form) -> Tensor:
    """Return the scales (rows,) of a table (rows, width) in 4 or 2 bits; one that is rounded already gets its own."""
    if form is Int8Form.TABLE4:
        return _refined(values, four_bit_scale(values), four_bit_levels)
    limit = values.abs().amax(dim=1)
    scales = [share * limit / 2 for share in torch.linspace(0.2, 1.1, CLIPS).tolist()]
    return _refined(values, _best_of(scales, values, limit, two_bit_levels), two_bit_levels)


def four_bit_scale(values: Tensor) -> Tensor:
    """Return one scale per row, (rows, width) -> (rows,), that makes the squared error of rounding least.

    A scale may be negative, so that the larger side of a row has the larger range, and it clips as much as pays.
    """
    limit = values.abs().amax(dim=1)
    shares = torch.linspace(0.5, 1.1, CLIPS).tolist()
    scales = [sign * share * limit / 7.5 for share in shares for sign in (1.0, -1.0)]
    return _best_of(scales, values, limit, four_bit_levels)


def _best_of(scales: Sequence[Tensor], values: Tensor, limit: Tensor, levels: Levels) -> Tensor:
    """Return for every row the scale with the least squared error; rows of zeros get 1."""
    best = torch.ones_like(limit)
    least = torch.full_like(limit, torch.inf)
    for candidate in scales:
        scale = torch.where(limit > 0, candidate, torch.ones_like(limit))
        error = (levels(values, scale[:, None]) * scale[:, None] - values).square().sum(dim=1)
        better = error < least
        best, least = torch.where(better, scale, best), torch.where(better, error, least)
    return best


def _refined(values: Tensor, scale: Tensor, levels: Levels) -> Tensor:
    """Return the best scale for the levels that `scale` gives, by least squares; rows of zeros keep theirs."""
    near = levels(values, scale[:, None])
    products = (near * values).sum(dim=1)
    return torch.where(products != 0, products / near.square().sum(dim=1).clamp(min=0.25), scale)


def four_bit_levels(values: Tensor, scale: Tensor) -> Tensor:
    """Return whole numbers -8..7 in float32 whose products with `scale` come nearest to `values`."""
    return torch.round(values / scale).clamp(LOWEST, HIGHEST)


def two_bit_levels(values: Tensor, scale: Tensor) -> Tensor:
    """Return -1.5, -0.5, 0.5 or 1.5 whose products with `scale` come nearest to `values`."""
    return (torch.floor(values / scale) + 0.5).clamp(-1.5, 1.5)


def pack(levels: Tensor) -> Tensor:
    """Return levels -8..7, (rows, width) of any type, two in a byte: uint8 (rows, ceil(width / 2)).

    They are stored plus 8, the first half of a row in the low halves of the bytes, the second in the high ones.
    """
    width = levels.shape[1]
    half = (width + 1) // 2
    raised = (levels - LOWEST).to(torch.uint8)
    high = torch.zeros(len(levels), half, dtype=torch.uint8)
    high[:, : width - half] = raised[:, half:]
    return raised[:, :half] | (high << 4)


def fake_rounded(rows: Tensor, form: Int8Form) -> Tensor:
    """Return rows (n, width) as a table of this form would hold them, with a straight-through gradient (for training).

    The scale is near the one that the table is rounded with, at a fraction of the time: Lloyd's step for a normal
    distribution in 2 bits, the widest value in 4 and 8, refined by least squares.
    """
    with torch.no_grad():
        values = rows.float()
        if form is Int8Form.TABLE2:
            first, levels = LLOYD_STEP * values.square().mean(dim=1).sqrt(), two_bit_levels
        elif form is Int8Form.TABLE4:
            first, levels = values.abs().amax(dim=1) / 7.5, four_bit_levels
        else:
            first, levels = values.abs().amax(dim=1) / 127, _eight_bit_levels
        scale = _refined(values, torch.where(first > 0, first, torch.ones_like(first)), levels)[:, None]
        change = levels(values, scale) * scale - values
    return rows + change.to(rows.dtype)


def _eight_bit_levels(values: Tensor, scale: Tensor) -> Tensor:
    return torch.round(values / scale).clamp(-127, 127)


class FakeRoundedEmbedding(nn.Embedding):
    """A float table whose rows are rounded as a table of `form` would hold them, whenever they are read."""

    def __init__(self, table: nn.Embedding, form: Int8Form) -> None:
        super().__init__(table.num_embeddings, table.embedding_dim, _weight=table.weight)
        self.weight = table.weight
        self.form = form

    def forward(self, input: Tensor) -> Tensor:
        """Return (..., width) for whole-number indices `input` (...)."""
        rows = super().forward(input)
        return fake_rounded(rows.flatten(0, -2), self.form).reshape(rows.shape)


class PackedEmbedding(nn.Module):
    """An embedding table in 4 bits: weight uint8 (rows, ceil(width / 2)) as of `pack`, weight_scale (rows,)."""

    weight: Tensor
    weight_scale: Tensor

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("weight", torch.zeros(rows, (width + 1) // 2, dtype=torch.uint8))
        self.register_buffer("weight_scale", torch.ones(rows))

    def forward(self, indices: Tensor) -> Tensor:
        """Return (..., width) float32 for whole-number `indices` (...)."""
        pairs = self.weight[indices]
        levels = torch.cat([pairs & 15, pairs >> 4], dim=-1)[..., : self.width].float() + LOWEST
        return levels * self.weight_scale[indices].unsqueeze(-1)


class TwoBitEmbedding(nn.Module):
    """An embedding table in 2 bits: weight uint8 (rows, ceil(width / 4)), weight_scale (rows,).

    A byte holds four neighbours of a row, the first in its lowest bits.
    """

    weight: Tensor
    weight_scale: Tensor

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("weight", torch.zeros(rows, (width + 3) // 4, dtype=torch.uint8))
        self.register_buffer("weight_scale", torch.ones(rows))

    def forward(self, indices: Tensor) -> Tensor:
        """Return (..., width) float32 for whole-number `indices` (...)."""
        codes = (self.weight[indices].unsqueeze(-1) >> _SHIFTS.to(indices.device)) & 3
        levels = codes.flatten(-2)[..., : self.width].float() - 1.5
        return levels * self.weight_scale[indices].unsqueeze(-1)
