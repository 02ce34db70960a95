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
