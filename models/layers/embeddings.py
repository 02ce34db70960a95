"""Word, position and token-type vectors, summed, and projected where the tables are narrower than the network."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.layers.linear import make_linear
from models.layers.norm import make_norm
from models.shape import ModelShape, Positions


class SinusoidalPositions(nn.Module):
    """Fixed position vectors (Vaswani et al. 2017, section 3.5): even columns sine, odd columns cosine."""

    weight: Tensor

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        # The device is named because a network that is about to be filled is built on the meta device.
        place = torch.arange(positions, dtype=torch.float64, device="cpu")[:, None]
        column = torch.arange(width, device="cpu")[None, :]
        angle = place * torch.exp((column // 2).double() * (-2 * math.log(10000.0) / width))
        table = torch.where(column % 2 == 0, angle.sin(), angle.cos())
        self.register_buffer("weight", table.float(), persistent=False)

    def forward(self, indices: Tensor) -> Tensor:
        """Return (..., width) for whole-number `indices` (...)."""
        return self.weight[indices]


class Embeddings(nn.Module):
    """Sum of word, position and token-type vectors, normalised, and projected where the tables have a width of their
    own (factorised embeddings, Lan et al. 2020, section 3.1).
    """

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.position_offset = shape.position_offset
        width = shape.embedding_width
        self.word = _table(shape.vocab_size, width)
        self.position = _positions(shape, width)
        self.token_type = _table(shape.type_vocab_size, width) if shape.type_vocab_size else None
        self.norm = make_norm(shape.norm, width, shape.norm_eps)
        self.dropout = nn.Dropout(shape.dropout)
        self.projection = None if shape.embedding_size is None else make_linear(width, shape.hidden_size)

    def sample(self, tokens: int) -> dict[str, Tensor]:
        """Return a text of so many tokens, by the names of a network's inputs."""
        return {"input_ids": torch.zeros((1, tokens), dtype=torch.int64)}

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Return (batch, time, hidden_size) for whole numbers (batch, time)."""
        hidden = self.word(input_ids)
        if self.position is not None:
            place = torch.arange(input_ids.shape[1], device=input_ids.device) + self.position_offset
            hidden = hidden + self.position(place)
        if self.token_type is not None:
            kinds = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            hidden = hidden + self.token_type(kinds)
        normed: Tensor = self.dropout(self.norm(hidden))
        return normed if self.projection is None else self.projection(normed)


def _positions(shape: ModelShape, width: int) -> nn.Module | None:
    if shape.positions is Positions.NONE:
        return None
    if shape.positions is Positions.SINUSOIDAL:
        return SinusoidalPositions(shape.max_positions, width)
    return _table(shape.max_positions, width)


def _table(rows: int, width: int) -> nn.Embedding:
    """Return a table. On the meta device, where values are about to be read, none are drawn: that would load PyTorch's
    compiler first.
    """
    if torch.get_default_device().type == "meta":
        return nn.Embedding(rows, width, _weight=torch.empty(rows, width))
    return nn.Embedding(rows, width)
