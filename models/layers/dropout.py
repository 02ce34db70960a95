"""Dropout (Srivastava et al. 2014) that takes a third of the time on CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

PARTS = 1 << 16  # a rate is rounded to one of so many
LOWEST = -(1 << 15)  # int16


class Dropout(nn.Module):
    """Zeros for a share `rate` of the values while training, the others scaled so that their mean stays."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, values: Tensor) -> Tensor:
        """Return values of the same shape."""
        return dropped(values, self.rate if self.training else 0.0)


def dropped(values: Tensor, rate: float) -> Tensor:
    """Return values of which a share `rate` is zero.

    PyTorch draws a number for each value on CPU, in one thread, which was a fifth of a training step in bf16. Here one
    draw of 64 bits serves four values.
    """
    parts = round(rate * PARTS)
    if values.device.type != "cpu" or parts in (0, PARTS):
        return dropout(values, rate, training=rate > 0)
    draws = torch.empty((values.numel() + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
    gone = draws.view(torch.int16)[: values.numel()].view(values.shape) < parts + LOWEST
    return values.masked_fill(gone, 0.0) * (PARTS / (PARTS - parts))
