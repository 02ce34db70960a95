"""Attention of a decoder's tokens to an encoder's states."""

from __future__ import annotations

from torch import Tensor, nn

from models.kinds import Biases
from models.layers.cache import KeyValues
from models.layers.gathering import gathered
from models.layers.linear import alone, make_linear
from models.shape import LayerShape


class CrossAttention(nn.Module):
    """Attention of `shape.cross_heads` heads of `shape.head_size` (Vaswani et al. 2017, section 3.2.3): queries of the
    tokens that are written, keys and values of an encoder's states.
    """

    def __init__(
        self, hidden_size: int, shape: LayerShape, *, dropout: float, biases: Biases, scale: float | None
    ) -> None:
        super().__init__()
        self.heads = shape.cross_heads or 0
        self.head_size = shape.head_size
        self.dropout = dropout
        self.scale = scale
        width, reads = self.heads * self.head_size, biases is not Biases.NONE
        self.query = make_linear(hidden_size, width, bias=reads)
        self.key = make_linear(hidden_size, width, bias=reads)
        self.value = make_linear(hidden_size, width, bias=reads)
        self.output = make_linear(width, hidden_size, bias=biases is Biases.ALL)

    def remember(self, states: Tensor) -> KeyValues:
        """Return keys and values of an encoder's states (batch, source, hidden_size)."""
        if self.heads == 0:
            nothing = states.new_zeros(len(states), 0, states.shape[1], self.head_size)
            return KeyValues(nothing, nothing)
        return KeyValues(self._split(self.key(states)), self._split(self.value(states)))

    def _split(self, projected: Tensor) -> Tensor:
        batch, time, _ = projected.shape
        return projected.view(batch, time, self.heads, self.head_size).transpose(1, 2)  # (batch, heads, time, size)

    def forward(self, hidden: Tensor, memory: KeyValues, mask: Tensor | None) -> Tensor:
        """Return (batch, time, hidden_size): what tokens gather of what `remember` returned.

        `mask` is boolean (batch, 1, 1, source), True where a state may be read, or None where all may.
        """
        if self.heads == 0:
            return alone(self.output, hidden)
        query = self._split(self.query(hidden))
        dropout = self.dropout if self.training else 0.0
        context = gathered(query, memory.key, memory.value, mask, dropout=dropout, scale=self.scale)
        batch, _, time, _ = context.shape
        return self.output(context.transpose(1, 2).reshape(batch, time, -1))  # type: ignore[no-any-return]
