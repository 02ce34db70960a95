"""Linear layers, of which some may have no input or no output left."""

from __future__ import annotations

import warnings

from torch import nn


def make_linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear layer; torch warns of an empty one, which here is a sublayer pruned away whole."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        return nn.Linear(inputs, outputs)
