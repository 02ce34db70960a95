"""What attention gathers: softmax(query . key * scale + added) . value, by the quickest kernel."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from models.layers.dropout import dropped

# Up to so many tokens PyTorch's fused kernel on CPU, whose way back is made for long texts, takes longer than plain
# products: there and back 7 times as long in bf16 at 32 tokens, 1.7 times in float32.
SHORT = {torch.bfloat16: 128, torch.float32: 32}


def gathered(
    query: Tensor, key: Tensor, value: Tensor, added: Tensor | None, *, dropout: float, scale: float | None
) -> Tensor:
    """Return (batch, heads, readers, size) for query (batch, heads, readers, size), and key and value (batch, heads,
    time, size).

    `added` is boolean, True where a token may be read, or what is added to the scores; None where all may be read.
    Scores are multiplied by `scale`, or by 1 / sqrt(size).
    """
    learns = torch.is_grad_enabled() and query.requires_grad
    if learns and query.device.type == "cpu" and key.shape[2] <= SHORT.get(query.dtype, 0):
        shares = _shares(query, key, added, 1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        return dropped(shares.to(value.dtype), dropout) @ value
    return scaled_dot_product_attention(query, key, value, attn_mask=added, dropout_p=dropout, scale=scale)


def _shares(query: Tensor, key: Tensor, added: Tensor | None, scale: float) -> Tensor:
    scores = query @ (key * scale).transpose(2, 3)
    if added is not None:
        scores = scores.masked_fill(~added, -math.inf) if added.dtype == torch.bool else scores + added
    return scores.softmax(dim=-1, dtype=torch.float32)
