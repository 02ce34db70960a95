"""Queries and keys turned by their places, so that their products depend on distances alone (Su et al. 2021, RoPE)."""

from __future__ import annotations

import torch
from torch import Tensor


def waves(tokens: int, size: int, base: float, *, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the angles of each place, both (tokens, size / 2), the shortest wavelength first."""
    return waves_at(torch.arange(tokens, device=device), size, base)


def waves_at(places: Tensor, size: int, base: float) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the angles of `places` (...), both (..., size / 2), as `waves` does."""
    speeds = 1.0 / (base ** (torch.arange(0, size, 2, dtype=torch.float32, device=places.device) / size))
    angles = places.to(torch.float32)[..., None] * speeds
    return angles.cos(), angles.sin()


def turned(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Return heads (..., tokens, size) turned: feature i and feature i + size / 2 are the two sides of an angle."""
    half = heads.shape[-1] // 2
    along = torch.cat([cosines, cosines], dim=-1)
    across = torch.cat([-sines, sines], dim=-1)
    # Rolled by half, as parts that are cut and joined look like channels to what finds the channels that hang together.
    return (heads * along + torch.roll(heads, half, dims=-1) * across).to(heads.dtype)
