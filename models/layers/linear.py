"""Linear layers, of which some may have no input or no output left."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn


def make_linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """Return a linear layer; torch warns of an empty one, which here is a sublayer pruned away whole."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        return nn.Linear(inputs, outputs, bias=bias)


def alone(linear: nn.Module, hidden: Tensor) -> Tensor:
    """Return what a linear layer that has no input left adds to `hidden` (..., width): its bias, or zeros."""
    bias = linear.bias
    return torch.zeros_like(hidden) if not isinstance(bias, Tensor) else bias.expand_as(hidden)
