"""The position-wise feed-forward network."""

from __future__ import annotations

from torch import Tensor, nn

from models.layers.activation import make_activation
from models.layers.linear import make_linear
from models.shape import Activation


class FeedForward(nn.Module):
    """down(activation(up(x))) with `width` neurons between."""

    def __init__(self, hidden_size: int, width: int, activation: Activation) -> None:
        super().__init__()
        self.width = width
        self.up = make_linear(hidden_size, width)
        self.activation = make_activation(activation)
        self.down = make_linear(width, hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (batch, time, hidden_size)."""
        if self.width == 0:
            return self.down.bias.expand_as(hidden)
        return self.down(self.activation(self.up(hidden)))  # type: ignore[no-any-return]
