"""The position-wise feed-forward network."""

from __future__ import annotations

from torch import Tensor, nn

from models.kinds import Activation
from models.layers.activation import make_activation
from models.layers.linear import alone, make_linear


class FeedForward(nn.Module):
    """down(activation(up(x))) with `width` neurons between, or down(activation(up(x)) * gate(x)) (Shazeer 2020)."""

    def __init__(
        self, hidden_size: int, width: int, activation: Activation, *, gated: bool = False, bias: bool = True
    ) -> None:
        super().__init__()
        self.width = width
        self.up = make_linear(hidden_size, width, bias=bias)
        self.gate = make_linear(hidden_size, width, bias=bias) if gated else None
        self.activation = make_activation(activation)
        self.down = make_linear(width, hidden_size, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (batch, time, hidden_size)."""
        if self.width == 0:
            return alone(self.down, hidden)
        raised = self.activation(self.up(hidden))
        return self.down(raised if self.gate is None else raised * self.gate(hidden))  # type: ignore[no-any-return]
