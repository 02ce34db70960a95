"""Weights of a checkpoint that hold several of ours: taken apart when it is read, put together when it is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from models.errors import BadFile
from models.weights import Names


def in_parts(whole: str, value: Tensor, table: Names) -> Iterator[tuple[str, Tensor]]:
    """Yield a weight as (out, in), the rows of a fused one for each of its names, or the layers of a stacked one."""
    stacked = table.layers(whole, len(value) if value.ndim else 0)
    names = table.parts(whole)
    value = value.t().contiguous() if table.is_transposed(names[0]) and value.ndim == 2 else value
    if stacked is not None:
        yield from zip(stacked, (part.clone() for part in value), strict=True)
    elif len(names) == 1:
        yield names[0], value
    elif value.ndim == 0 or len(value) % len(names):
        raise BadFile(f"a weight of {tuple(value.shape)} has no {len(names)} equal parts", where=names[0])
    else:
        yield from zip(names, (part.clone() for part in value.chunk(len(names))), strict=True)


def joined(names: Names, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a checkpoint's weights as they stand there, with the parts of fused and stacked ones put together."""
    stacks: dict[str, dict[int, Tensor]] = {}
    together: dict[str, list[Tensor]] = {}
    for name in sorted(weights):  # the parts are numbered by one digit
        stack = names.stack(name)
        if stack is None:
            together.setdefault(names.whole(name), []).append(weights[name])
        else:
            stacks.setdefault(stack[0], {})[stack[1]] = weights[name]
    found = {name: torch.cat(parts) if len(parts) > 1 else parts[0] for name, parts in together.items()}
    found = {name: value.t().contiguous() if names.is_transposed(name) else value for name, value in found.items()}
    return found | {name: torch.stack([parts[key] for key in sorted(parts)]) for name, parts in stacks.items()}
