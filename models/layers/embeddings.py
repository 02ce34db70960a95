"""Word, position and token-type vectors, summed, and projected where the tables are narrower than the network; and the
way back, from states to words.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from models.kinds import Positions
from models.layers.blocked import BlockedEmbedding
from models.layers.dropout import Dropout
from models.layers.linear import make_linear
from models.layers.norm import make_norm
from models.layers.quantized import QuantizedEmbedding
from models.shape import ModelShape, OutputShape


class SinusoidalPositions(nn.Module):
    """Fixed position vectors (Vaswani et al. 2017, section 3.5): even columns sine, odd columns cosine, or with
    `halves` all sines first.
    """

    weight: Tensor

    def __init__(self, positions: int, width: int, *, halves: bool = False) -> None:
        super().__init__()
        # The device is named because a network that is about to be filled is built on the meta device.
        place = torch.arange(positions, dtype=torch.float64, device="cpu")[:, None]
        column = torch.arange(width, device="cpu")[None, :]
        angle = place * torch.exp((column // 2).double() * (-2 * math.log(10000.0) / width))
        table = torch.where(column % 2 == 0, angle.sin(), angle.cos())
        if halves:
            table = torch.cat([table[:, 0::2], table[:, 1::2]], dim=1)
        self.register_buffer("weight", table.float(), persistent=False)

    def forward(self, indices: Tensor) -> Tensor:
        """Return (..., width) for whole-number `indices` (...)."""
        return self.weight[indices]


class Embeddings(nn.Module):
    """Sum of word, position and token-type vectors, normalised, and projected where the tables have a width of their
    own (factorised embeddings, Lan et al. 2020, section 3.1).

    Those of a decoder (`reader` off) have no token types, and a word table only where it is their own.
    """

    def __init__(self, shape: ModelShape, *, reader: bool = True) -> None:
        super().__init__()
        self.position_offset = shape.position_offset
        self.scale = shape.embedding_scale
        width = shape.embedding_width
        own = shape.vocab_size if reader or shape.decoder is None else shape.decoder.vocab_size
        self.word = None if own is None else _table(own, width)
        self.position = _positions(shape, width)
        self.token_type = _table(shape.type_vocab_size, width) if shape.type_vocab_size and reader else None
        self.norm = make_norm(shape.norm, width, shape.norm_eps) if shape.embedding_norm else None
        self.dropout = Dropout(shape.dropout)
        self.projection = None if shape.embedding_size is None else make_linear(width, shape.hidden_size)

    def sample(self, tokens: int) -> dict[str, Tensor]:
        """Return a text of so many tokens, by the names of a network's inputs."""
        return {"input_ids": torch.zeros((1, tokens), dtype=torch.int64)}

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        *,
        places: Tensor | None = None,
        table: nn.Module | None = None,
    ) -> Tensor:
        """Return (batch, time, hidden_size) for whole numbers (batch, time). `places` (batch or 1, time) says where the
        tokens stand, else they begin at 0; `table` is where words are looked up that are not these embeddings' own.
        """
        words = self.word if table is None else table
        assert words is not None
        hidden = words(input_ids)
        if self.scale != 1.0:
            hidden = hidden * self.scale
        if self.position is not None:
            stand = torch.arange(input_ids.shape[1], device=input_ids.device) if places is None else places
            hidden = hidden + self.position(stand + self.position_offset)
        if self.token_type is not None:
            kinds = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            hidden = hidden + self.token_type(kinds)
        normed: Tensor = self.dropout(hidden if self.norm is None else self.norm(hidden))
        return normed if self.projection is None else self.projection(normed)


class WordOutput(nn.Module):
    """Logits of words for the last states: their product with the rows of a word table (Press and Wolf 2017) or with a
    matrix of its own, where the states were multiplied by a scale (Raffel et al. 2020), plus a bias. A table in int8
    or in blocks multiplies in int8: its product is the largest of a step.
    """

    def __init__(self, hidden_size: int, words: int, shape: OutputShape) -> None:
        super().__init__()
        self.scale = shape.scale
        self.projection = None if shape.tied else make_linear(hidden_size, words, bias=False)
        self.bias = nn.Parameter(torch.zeros(words)) if shape.bias else None

    def forward(self, hidden: Tensor, table: nn.Module) -> Tensor:
        """Return (..., words) for states (..., hidden_size); `table` is the word table that the writer reads."""
        scaled = hidden if self.scale == 1.0 else hidden * self.scale
        logits: Tensor
        if self.projection is not None:
            logits = self.projection(scaled)
        elif isinstance(table, (QuantizedEmbedding, BlockedEmbedding)):
            logits = table.products(scaled)
        else:
            return linear(scaled, rows_of(table), self.bias)
        return logits if self.bias is None else logits + self.bias


def rows_of(table: nn.Module) -> Tensor:
    """Return the rows of a word table in any form, (words, width) float32."""
    if type(table) is nn.Embedding:
        return table.weight
    weight = table.weight
    assert isinstance(weight, Tensor)
    return table(torch.arange(len(weight), device=weight.device))  # type: ignore[no-any-return]


def _positions(shape: ModelShape, width: int) -> nn.Module | None:
    if shape.positions is Positions.NONE:
        return None
    if shape.positions in (Positions.SINUSOIDAL, Positions.HALVES):
        return SinusoidalPositions(shape.max_positions, width, halves=shape.positions is Positions.HALVES)
    return _table(shape.max_positions, width)


def _table(rows: int, width: int) -> nn.Embedding:
    """Return a table. On the meta device, where values are about to be read, none are drawn: that would load PyTorch's
    compiler first.
    """
    if torch.get_default_device().type == "meta":
        return nn.Embedding(rows, width, _weight=torch.empty(rows, width))
    return nn.Embedding(rows, width)
