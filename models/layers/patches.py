"""Images as tokens: squares of pixels, after a learned class token (Dosovitskiy et al. 2021, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers.dropout import Dropout
from models.shape import ImageShape


class LearnedRows(nn.Module):
    """Vectors that are learned and belong to no number: weight (rows, width)."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, width))

    def forward(self) -> Tensor:
        """Return (rows, width)."""
        return self.weight


class PatchEmbeddings(nn.Module):
    """Patches through one linear layer, which a convolution with the patch as its step is, between the learned tokens,
    each with the vector of its place.
    """

    def __init__(self, hidden_size: int, image: ImageShape, *, dropout: float) -> None:
        super().__init__()
        self.image = image
        self.projection = nn.Linear(image.patch_values, hidden_size)
        self.tokens = nn.ModuleList(LearnedRows(1, hidden_size) for _ in range(image.prefix))
        self.suffix = LearnedRows(image.suffix, hidden_size) if image.suffix else None
        self.position = LearnedRows(image.tokens, hidden_size)
        self.dropout = Dropout(dropout)

    def sample(self, tokens: int) -> dict[str, Tensor]:
        """Return an image by the name of a network's input; it always has as many tokens as it has."""
        image = self.image
        return {"pixel_values": torch.zeros((1, image.channels, image.height, image.width))}

    def patches(self, pixels: Tensor) -> Tensor:
        """Return (batch, patches, channels * patch * patch) of (batch, channels, height, width); what is left of a row
        or a column is not read.
        """
        size, (rows, columns) = self.image.patch, self.image.grid
        cut = pixels[:, :, : rows * size, : columns * size]
        squares = cut.reshape(len(cut), -1, rows, size, columns, size)  # (batch, channels, rows, size, columns, size)
        return squares.permute(0, 2, 4, 1, 3, 5).reshape(len(cut), rows * columns, -1)

    def forward(self, pixels: Tensor, _: Tensor | None = None) -> Tensor:
        """Return (batch, tokens, hidden_size) for normalised pixels (batch, channels, height, width)."""
        patches = self.projection(self.patches(pixels))
        learned = [token().expand(len(patches), 1, -1) for token in self.tokens]
        behind = [] if self.suffix is None else [self.suffix().expand(len(patches), -1, -1)]
        hidden = torch.cat([*learned, patches, *behind], dim=1) + self.position()
        return self.dropout(hidden)  # type: ignore[no-any-return]
