"""Normalisation of the residual stream."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.kinds import Norm


class ElementwiseNorm(nn.Module):
    """x * weight + bias: MobileBERT's NoNorm (Sun et al. 2020, section 3.2). Folds into neighbouring linear layers."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (..., size)."""
        return hidden * self.weight + self.bias


def make_norm(norm: Norm, size: int, eps: float) -> nn.Module:
    """Return the normalisation module for the last axis of width `size`."""
    if norm is Norm.LAYER:
        return nn.LayerNorm(size, eps=eps)
    if norm is Norm.RMS:
        return nn.RMSNorm(size, eps=eps)
    return ElementwiseNorm(size)
