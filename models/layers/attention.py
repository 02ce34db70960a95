"""Multi-head self-attention whose number of heads is its own: of every token, in a window, or linear."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, scaled_dot_product_attention

from models.layers.linear import make_linear
from models.layers.rotary import turned, waves
from models.shape import EVERY_TOKEN, LayerShape, RelativeBias

LEAST_TOTAL = 1e-6  # what linear attention divides by is at least this, as in its authors' code


class DistanceBias(nn.Module):
    """Numbers added to attention scores for how far apart two tokens are (Raffel et al. 2020, section 2.1).

    The table `weight` is (buckets, heads): a column belongs to a head, so that heads can be cut out.
    """

    def __init__(self, shape: RelativeBias, heads: int) -> None:
        super().__init__()
        self.shape = shape
        self.weight = nn.Parameter(torch.zeros(shape.buckets, heads))

    def by_distance(self, tokens: int) -> Tensor:
        """Return (2 * tokens - 1, heads): what is added for distances from 1 - tokens to tokens - 1."""
        reach = torch.arange(1 - tokens, tokens, device=self.weight.device)
        return self.weight[distance_buckets(reach, self.shape)]

    def forward(self, tokens: int, *, readers: slice = EVERY_TOKEN) -> Tensor:
        """Return (heads, readers, tokens): what is added to the score of each reader for each token."""
        windows = self.by_distance(tokens).t().unfold(1, tokens, 1)  # (heads, tokens, tokens), the last reader first
        return windows.flip(1)[:, readers]


def distance_buckets(distances: Tensor, shape: RelativeBias) -> Tensor:
    """Return the number of the bucket for distances (of what is read, minus of the reader), as T5 and MPNet have it.

    Half of the buckets are for what comes after the reader. Of each half, half hold one distance each, and the others
    grow with the logarithm up to `max_distance`.
    """
    half = shape.buckets // 2
    exact = half // 2
    far = distances.abs()
    growth = torch.log(far.float() / exact) / math.log(shape.max_distance / exact) * (half - exact)
    # The logarithm of 0 is cast to a number that depends on the machine; it is not chosen.
    large = (exact + growth.clamp(min=0).long()).clamp(max=half - 1)
    return torch.where(far < exact, far, large) + (distances > 0).long() * half


class Attention(nn.Module):
    """Self-attention of `shape.heads` heads of `shape.head_size` over a residual stream of `hidden_size`, with a bias
    for distances where `relative` says so, and in a window, linear or turned by places where `shape` does.
    """

    def __init__(
        self, hidden_size: int, shape: LayerShape, *, dropout: float, relative: RelativeBias | None = None
    ) -> None:
        super().__init__()
        self.heads = shape.heads
        self.head_size = shape.head_size
        self.window = shape.window
        self.global_tokens = shape.global_tokens
        self.linear = shape.linear
        self.rotary = shape.rotary
        self.dropout = dropout
        self.query = make_linear(hidden_size, shape.attention_width)
        self.key = make_linear(hidden_size, shape.attention_width)
        self.value = make_linear(hidden_size, shape.attention_width)
        self.output = make_linear(shape.attention_width, hidden_size)
        self.relative = None if relative is None or shape.linear else DistanceBias(relative, shape.heads)

    def project(self, hidden: Tensor, *, readers: slice = EVERY_TOKEN) -> tuple[Tensor, Tensor, Tensor]:
        """Return query (batch, readers, heads * head_size), and key and value of all tokens."""
        return self.query(hidden[:, readers]), self.key(hidden), self.value(hidden)

    def _split(self, projected: Tensor) -> Tensor:
        batch, time, _ = projected.shape
        return projected.view(batch, time, self.heads, self.head_size).transpose(1, 2)  # (batch, heads, time, size)

    def _added(self, query: Tensor, mask: Tensor | None, *, tokens: int, readers: slice) -> Tensor | None:
        """Return what is added to the scores, or where they count: the mask, the window and the bias for distances."""
        if self.window is not None and (mask is not None or tokens > self.window + 1):
            places = torch.arange(tokens, device=query.device)
            apart = (places[readers, None] - places[None, :]).abs()
            near: Tensor = apart <= self.window
            if self.global_tokens:
                all_read = places < self.global_tokens
                near = near | all_read[readers, None] | all_read[None, :]
            # Padding reads itself: a reader far behind the text would have nothing to read.
            mask = near[None, None] if mask is None else (mask & near) | (apart == 0)
        if self.relative is None:
            return mask
        bias: Tensor = self.relative(tokens, readers=readers)[None].to(query.dtype)
        return bias if mask is None else bias.masked_fill(~mask, -math.inf)

    def forward(self, hidden: Tensor, mask: Tensor | None, *, readers: slice = EVERY_TOKEN) -> Tensor:
        """Return (batch, readers, hidden_size): what the tokens of `readers` gather from all tokens.

        `mask` is boolean (batch, 1, 1, time), True where a token may be attended to, or None where all may.
        """
        if self.heads == 0:
            return self.output.bias.expand_as(hidden[:, readers])
        query, key, value = (self._split(part) for part in self.project(hidden, readers=readers))
        if self.linear:
            context = self._summed(query, key, value, mask, readers=readers)
        else:
            query, key = self._turned(query, key, readers=readers)
            added = self._added(query, mask, tokens=hidden.shape[1], readers=readers)
            dropout = self.dropout if self.training else 0.0
            context = scaled_dot_product_attention(query, key, value, attn_mask=added, dropout_p=dropout)
        batch, _, time, _ = context.shape
        return self.output(context.transpose(1, 2).reshape(batch, time, -1))  # type: ignore[no-any-return]

    def _turned(self, query: Tensor, key: Tensor, *, readers: slice) -> tuple[Tensor, Tensor]:
        if self.rotary is None:
            return query, key
        cosines, sines = waves(key.shape[2], self.head_size, self.rotary, device=key.device)
        return turned(query, cosines[readers], sines[readers]), turned(key, cosines, sines)

    def _summed(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, readers: slice) -> Tensor:
        """Return f(q) (f(k)^T v) / (f(q) . sum f(k)) with f = elu + 1 (Katharopoulos et al. 2020, eq. 5 and 7).

        Where places are turned, they are above the line alone: what is divided by stays positive (Su et al. 2021, eq.
        19). There are no shares that dropout could clear.
        """
        asked, offered = elu(query) + 1, elu(key) + 1  # (batch, heads, time, size)
        if mask is not None:
            offered = offered * mask.transpose(2, 3)
        total = (asked * offered.sum(dim=2, keepdim=True)).sum(dim=3, keepdim=True) + LEAST_TOTAL
        asked, offered = self._turned(asked, offered, readers=readers)
        return asked @ (offered.transpose(2, 3) @ value) / total


def padding_mask(attention_mask: Tensor | None) -> Tensor | None:
    """Return the boolean (batch, 1, 1, time) mask of a (batch, time) mask of ones and zeros; None if nothing is padded.

    Skipping an all-true mask keeps the faster attention kernel for batches of one length.
    """
    if attention_mask is None or bool(torch.all(attention_mask)):
        return None
    return attention_mask.to(torch.bool)[:, None, None, :]
