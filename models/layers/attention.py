"""Multi-head self-attention whose number of heads is its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from models.layers.linear import make_linear
from models.shape import LayerShape

EVERY_TOKEN = slice(None)
FIRST_TOKEN = slice(0, 1)


class Attention(nn.Module):
    """Self-attention of `shape.heads` heads of `shape.head_size` over a residual stream of `hidden_size`."""

    def __init__(self, hidden_size: int, shape: LayerShape, *, dropout: float) -> None:
        super().__init__()
        self.heads = shape.heads
        self.head_size = shape.head_size
        self.dropout = dropout
        self.query = make_linear(hidden_size, shape.attention_width)
        self.key = make_linear(hidden_size, shape.attention_width)
        self.value = make_linear(hidden_size, shape.attention_width)
        self.output = make_linear(shape.attention_width, hidden_size)

    def project(self, hidden: Tensor, *, readers: slice = EVERY_TOKEN) -> tuple[Tensor, Tensor, Tensor]:
        """Return query (batch, readers, heads * head_size), and key and value of all tokens."""
        return self.query(hidden[:, readers]), self.key(hidden), self.value(hidden)

    def _split(self, projected: Tensor) -> Tensor:
        batch, time, _ = projected.shape
        return projected.view(batch, time, self.heads, self.head_size).transpose(1, 2)  # (batch, heads, time, size)

    def forward(self, hidden: Tensor, mask: Tensor | None, *, readers: slice = EVERY_TOKEN) -> Tensor:
        """Return (batch, readers, hidden_size): what the tokens of `readers` gather from all tokens.

        `mask` is boolean (batch, 1, 1, time), True where a token may be attended to, or None where all may.
        """
        if self.heads == 0:
            return self.output.bias.expand_as(hidden[:, readers])
        query, key, value = (self._split(part) for part in self.project(hidden, readers=readers))
        dropout = self.dropout if self.training else 0.0
        context = scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        batch, _, time, _ = context.shape
        return self.output(context.transpose(1, 2).reshape(batch, time, -1))  # type: ignore[no-any-return]


def padding_mask(attention_mask: Tensor | None) -> Tensor | None:
    """Return the boolean (batch, 1, 1, time) mask of a (batch, time) mask of ones and zeros; None if nothing is padded.

    Skipping an all-true mask keeps the faster attention kernel for batches of one length.
    """
    if attention_mask is None or bool(torch.all(attention_mask)):
        return None
    return attention_mask.to(torch.bool)[:, None, None, :]
