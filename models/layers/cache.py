"""What a step of writing keeps for the next, and what it knows of where tokens stand."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class KeyValues(NamedTuple):
    """Keys and values that attention reads, both (batch, heads of keys, time, head_size)."""

    key: Tensor
    value: Tensor


class LayerCache(NamedTuple):
    """What a layer keeps: keys and values of the tokens written so far, and those of the encoder's states where it
    reads them, which are computed once.
    """

    own: KeyValues
    cross: KeyValues | None


Cache = tuple[LayerCache, ...]  # of every layer that writes


class Reach(NamedTuple):
    """Which tokens new ones read, and where the new ones stand.

    `mask` is boolean (batch or 1, 1, new, all), True where a token is read, or None where all are; `places` (batch or
    1, new) are whole numbers from 0. `source` is boolean (batch, 1, 1, source) for an encoder's states, or None.
    """

    mask: Tensor | None
    places: Tensor
    source: Tensor | None


def reach_of(ids: Tensor, *, past: int, mask: Tensor | None, source: Tensor | None) -> Reach:
    """Return what new tokens `ids` (batch, new) behind `past` others read: those before and themselves.

    `mask` (batch, past + new) holds 1 for tokens and 0 for padding, which may stand anywhere; a token's place is the
    number of tokens before it. Padding reads itself, as it would otherwise have nothing to read.
    """
    every = past + ids.shape[1]
    index = torch.arange(every, device=ids.device)
    new = index[past:]
    before = index[None, :] <= new[:, None]  # (new, all)
    if mask is None or bool(torch.all(mask)):
        return Reach(before[None, None] if len(new) > 1 else None, new[None], source)
    read = (before & mask.to(torch.bool)[:, None, None, :]) | (index[None, :] == new[:, None])
    places = (mask.to(torch.int64).cumsum(dim=1) - 1).clamp(min=0)[:, past:]
    return Reach(read, places, source)


def written(cache: Cache | None) -> int:
    """Return how many tokens a cache holds."""
    return cache[0].own.key.shape[2] if cache else 0


def reordered(cache: Cache, rows: Tensor) -> Cache:
    """Return the cache of these rows of the batch, in this order; a row may be named several times, or not at all."""
    return tuple(
        LayerCache(_taken(layer.own, rows), None if layer.cross is None else _taken(layer.cross, rows))
        for layer in cache
    )


def _taken(both: KeyValues, rows: Tensor) -> KeyValues:
    return KeyValues(both.key.index_select(0, rows), both.value.index_select(0, rows))
