"""What turns hidden states into a task's output."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from models.layers.activation import make_activation
from models.shape import HeadShape, Reads

LEAST_LENGTH = 1e-12  # of an embedding that is made of length 1


class ClassificationHead(nn.Module):
    """output(activation(dense(first token))): the pooler and classifier of BERT, RoBERTa and DistilBERT."""

    def __init__(self, hidden_size: int, shape: HeadShape) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.activation = make_activation(shape.activation)
        self.dropout = nn.Dropout(shape.dropout)
        self.output = nn.Linear(hidden_size, shape.outputs)

    def forward(self, hidden: Tensor, _: Tensor | None = None) -> Tensor:
        """Return logits (batch, labels) for hidden states (batch, time, hidden_size)."""
        return self.output(self.dropout(self.activation(self.dense(hidden[:, 0]))))  # type: ignore[no-any-return]


class TokenHead(nn.Module):
    """output(token), of each token for itself."""

    def __init__(self, hidden_size: int, shape: HeadShape) -> None:
        super().__init__()
        self.dropout = nn.Dropout(shape.dropout)
        self.output = nn.Linear(hidden_size, shape.outputs)

    def forward(self, hidden: Tensor, _: Tensor | None = None) -> Tensor:
        """Return logits (batch, time, labels) for hidden states (batch, time, hidden_size)."""
        return self.output(self.dropout(hidden))  # type: ignore[no-any-return]


class EmbeddingHead(nn.Module):
    """The first token, or the mean of all (Reimers and Gurevych 2019), of length 1 where `normalized`."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.reads = shape.reads
        self.normalized = shape.normalized

    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return embeddings (batch, hidden_size) for hidden states (batch, time, hidden_size) and the mask of ones and
        zeros (batch, time).
        """
        if self.reads is Reads.FIRST:
            pooled = hidden[:, 0]
        elif attention_mask is None:
            pooled = hidden.mean(dim=1)
        else:
            shares = attention_mask.to(hidden.dtype) / attention_mask.sum(dim=1, keepdim=True)
            pooled = torch.einsum("bt,bth->bh", shares, hidden)
        return normalize(pooled, dim=-1, eps=LEAST_LENGTH) if self.normalized else pooled


def make_head(hidden_size: int, shape: HeadShape) -> nn.Module:
    """Return the head of this shape."""
    if not shape.labels:
        return EmbeddingHead(shape)
    return TokenHead(hidden_size, shape) if shape.tokens else ClassificationHead(hidden_size, shape)
