"""Multi-head self-attention whose number of heads is its own: of every token, in a window, linear, or causal."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from models.kinds import Biases
from models.layers.cache import KeyValues, Reach
from models.layers.gathering import gathered
from models.layers.linear import alone, make_linear
from models.layers.rotary import turned, waves, waves_at
from models.shape import EVERY_TOKEN, LayerShape, RelativeBias

LEAST_TOTAL = 1e-6  # what linear attention divides by is at least this, as in its authors' code


class DistanceBias(nn.Module):
    """Numbers added to attention scores for how far apart two tokens are (Raffel et al. 2020, section 2.1).

    The table `weight` is (buckets, heads): a column belongs to a head, so that heads can be cut out. With `one_way` all
    buckets are for what stands before the reader.
    """

    def __init__(self, shape: RelativeBias, heads: int, *, one_way: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.one_way = one_way
        self.weight = nn.Parameter(torch.zeros(shape.buckets, heads))

    def by_distance(self, tokens: int) -> Tensor:
        """Return (2 * tokens - 1, heads): what is added for distances from 1 - tokens to tokens - 1."""
        reach = torch.arange(1 - tokens, tokens, device=self.weight.device)
        return self.weight[distance_buckets(reach, self.shape, one_way=self.one_way)]

    def forward(self, tokens: int, *, readers: slice = EVERY_TOKEN) -> Tensor:
        """Return (heads, readers, tokens): what is added to the score of each reader for each token."""
        windows = self.by_distance(tokens).t().unfold(1, tokens, 1)  # (heads, tokens, tokens), the last reader first
        return windows.flip(1)[:, readers]


def distance_buckets(distances: Tensor, shape: RelativeBias, *, one_way: bool = False) -> Tensor:
    """Return the number of the bucket for distances (of what is read, minus of the reader), as T5 and MPNet have it.

    Half of the buckets are for what comes after the reader, or none of them with `one_way`: distance 0 then stands for
    all of that. Of each half, half hold one distance each, and the others grow with the logarithm up to `max_distance`.
    """
    half = shape.buckets if one_way else shape.buckets // 2
    exact = half // 2
    far = (-distances).clamp(min=0) if one_way else distances.abs()
    growth = torch.log(far.float() / exact) / math.log(shape.max_distance / exact) * (half - exact)
    # The logarithm of 0 is cast to a number that depends on the machine; it is not chosen.
    large = (exact + growth.clamp(min=0).long()).clamp(max=half - 1)
    near = torch.where(far < exact, far, large)
    return near if one_way else near + (distances > 0).long() * half


class Attention(nn.Module):
    """Self-attention of `shape.heads` heads of `shape.head_size` over a residual stream of `hidden_size`, with a bias
    for distances where `relative` says so, and in a window, linear, causal or turned by places where `shape` does.
    Scores are multiplied by `scale`, or by 1 / sqrt(head_size).
    """

    def __init__(
        self,
        hidden_size: int,
        shape: LayerShape,
        *,
        dropout: float,
        relative: RelativeBias | None = None,
        biases: Biases = Biases.ALL,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.heads = shape.heads
        self.key_heads = shape.key_heads
        self.head_size = shape.head_size
        self.window = shape.window
        self.global_tokens = shape.global_tokens
        self.linear = shape.linear
        self.causal = shape.causal
        self.rotary = shape.rotary
        self.dropout = dropout
        self.scale = scale
        reads, keys = biases is not Biases.NONE, shape.key_heads * shape.head_size
        self.query = make_linear(hidden_size, shape.attention_width, bias=reads)
        self.key = make_linear(hidden_size, keys, bias=reads)
        self.value = make_linear(hidden_size, keys, bias=reads)
        self.output = make_linear(shape.attention_width, hidden_size, bias=biases is Biases.ALL)
        known = None if shape.linear else relative
        self.relative = None if known is None else DistanceBias(known, shape.heads, one_way=shape.causal)

    def project(self, hidden: Tensor, *, readers: slice = EVERY_TOKEN) -> tuple[Tensor, Tensor, Tensor]:
        """Return query (batch, readers, heads * head_size), and key and value (batch, time, key_heads * head_size)."""
        return self.query(hidden[:, readers]), self.key(hidden), self.value(hidden)

    def _by_head(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `project` returned, each (batch, heads or key_heads, time, size)."""
        heads = (self.heads, self.key_heads, self.key_heads)
        split = (
            part.view(*part.shape[:2], count, self.head_size).transpose(1, 2)
            for part, count in zip((query, key, value), heads, strict=True)
        )
        first, second, third = split
        return first, second, third

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
        if self.causal and tokens > 1:
            places = torch.arange(tokens, device=query.device)
            before = places[None, :] <= places[readers, None]
            # Padding reads itself: before the text there would be nothing to read.
            itself = places[None, :] == places[readers, None]
            mask = before[None, None] if mask is None else (mask & before) | itself
        return mask if self.relative is None else self._biased(query, mask, tokens=tokens, readers=readers)

    def _biased(self, query: Tensor, mask: Tensor | None, *, tokens: int, readers: slice) -> Tensor:
        assert self.relative is not None
        bias: Tensor = self.relative(tokens, readers=readers)[None].to(query.dtype)
        return bias if mask is None else bias.masked_fill(~mask, -math.inf)

    def forward(self, hidden: Tensor, mask: Tensor | None, *, readers: slice = EVERY_TOKEN) -> Tensor:
        """Return (batch, readers, hidden_size): what the tokens of `readers` gather from all tokens.

        `mask` is boolean (batch, 1, 1, time), True where a token may be attended to, or None where all may.
        """
        if self.heads == 0:
            return alone(self.output, hidden[:, readers])
        query, key, value = self._by_head(*self.project(hidden, readers=readers))
        if self.linear:
            context = self._summed(query, key, value, mask, readers=readers)
        else:
            query, key = self._turned(query, key, readers=readers)
            added = self._added(query, mask, tokens=hidden.shape[1], readers=readers)
            context = self._gathered(query, key, value, added)
        batch, _, time, _ = context.shape
        return self.output(context.transpose(1, 2).reshape(batch, time, -1))  # type: ignore[no-any-return]

    def step(self, hidden: Tensor, reach: Reach, past: KeyValues | None) -> tuple[Tensor, KeyValues]:
        """Return (batch, new, hidden_size), what new tokens gather from those before and themselves, and the keys and
        values of all; `past` are those before, None at the beginning.
        """
        batch, new, _ = hidden.shape
        if self.heads == 0:
            before = 0 if past is None else past.key.shape[2]
            nothing = hidden.new_zeros(batch, self.key_heads, before + new, self.head_size)
            return alone(self.output, hidden), KeyValues(nothing, nothing)
        query, key, value = self._by_head(*self.project(hidden))
        if self.rotary is not None:
            cosines, sines = (
                wave[:, None] for wave in waves_at(reach.places, self.head_size, self.rotary)
            )  # (batch or 1, 1, new, size / 2)
            query, key = turned(query, cosines, sines), turned(key, cosines, sines)
        if past is not None:
            key, value = torch.cat([past.key, key], dim=2), torch.cat([past.value, value], dim=2)
        tokens, added = key.shape[2], reach.mask
        if self.relative is not None:
            added = self._biased(query, added, tokens=tokens, readers=slice(tokens - new, tokens))
        context = self._gathered(query, key, value, added)
        return self.output(context.transpose(1, 2).reshape(batch, new, -1)), KeyValues(key, value)

    def _gathered(self, query: Tensor, key: Tensor, value: Tensor, added: Tensor | None) -> Tensor:
        """Return (batch, heads, readers, size): softmax(query . key * scale + added) . value."""
        if self.key_heads != self.heads:
            each = self.heads // self.key_heads
            key, value = key.repeat_interleave(each, dim=1), value.repeat_interleave(each, dim=1)
        dropout = self.dropout if self.training else 0.0
        return gathered(query, key, value, added, dropout=dropout, scale=self.scale)

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
