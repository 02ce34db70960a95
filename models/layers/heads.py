"""What turns hidden states into a task's output."""

from __future__ import annotations

from torch import Tensor, nn

from models.layers.activation import make_activation
from models.shape import HeadShape


class ClassificationHead(nn.Module):
    """output(activation(dense(first token))): the pooler and classifier of BERT, RoBERTa and DistilBERT."""

    def __init__(self, hidden_size: int, shape: HeadShape) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.activation = make_activation(shape.activation)
        self.dropout = nn.Dropout(shape.dropout)
        self.output = nn.Linear(hidden_size, len(shape.labels))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return logits (batch, labels) for hidden states (batch, time, hidden_size)."""
        return self.output(self.dropout(self.activation(self.dense(hidden[:, 0]))))  # type: ignore[no-any-return]


class TokenHead(nn.Module):
    """output(token), of each token for itself."""

    def __init__(self, hidden_size: int, shape: HeadShape) -> None:
        super().__init__()
        self.dropout = nn.Dropout(shape.dropout)
        self.output = nn.Linear(hidden_size, len(shape.labels))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return logits (batch, time, labels) for hidden states (batch, time, hidden_size)."""
        return self.output(self.dropout(hidden))  # type: ignore[no-any-return]


def make_head(hidden_size: int, shape: HeadShape) -> nn.Module:
    """Return the head of this shape."""
    return TokenHead(hidden_size, shape) if shape.tokens else ClassificationHead(hidden_size, shape)
