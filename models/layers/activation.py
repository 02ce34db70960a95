"""Activations by name."""

from __future__ import annotations

from torch import nn

from models.kinds import Activation

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    Activation.GELU: nn.GELU,
    Activation.RELU: nn.ReLU,
    Activation.SILU: nn.SiLU,
    Activation.TANH: nn.Tanh,
}


def make_activation(activation: Activation) -> nn.Module:
    """Return the module that computes `activation`."""
    if activation is Activation.GELU_TANH:
        return nn.GELU(approximate="tanh")
    return ACTIVATIONS[activation]()
