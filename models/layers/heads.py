"""What turns hidden states into a task's output."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from models.kinds import Norm, Reads
from models.layers.activation import make_activation
from models.layers.dropout import Dropout
from models.layers.norm import make_norm
from models.shape import BOX, HeadShape, ImageShape

LEAST_LENGTH = 1e-12  # of an embedding that is made of length 1


class ClassificationHead(nn.Module):
    """output(activation(dense(first token))): the pooler and classifier of BERT, RoBERTa and DistilBERT."""

    def __init__(self, hidden_size: int, shape: HeadShape) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.activation = make_activation(shape.activation)
        self.dropout = Dropout(shape.dropout)
        self.output = nn.Linear(hidden_size, shape.outputs)

    def forward(self, hidden: Tensor, _: Tensor | None = None) -> Tensor:
        """Return logits (batch, labels) for hidden states (batch, time, hidden_size)."""
        return self.output(self.dropout(self.activation(self.dense(hidden[:, 0]))))  # type: ignore[no-any-return]


class NormedHead(nn.Module):
    """output(norm(activation(dense(x)))) of the first token, of the mean of all, or of each: ModernBERT's."""

    def __init__(self, hidden_size: int, shape: HeadShape, *, norm: Norm, eps: float) -> None:
        super().__init__()
        self.reads = shape.reads
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.activation = make_activation(shape.activation)
        self.norm = make_norm(norm, hidden_size, eps)
        self.dropout = Dropout(shape.dropout)
        self.output = nn.Linear(hidden_size, shape.outputs)

    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return logits (batch, labels), or (batch, time, labels) of each token, for hidden states (batch, time,
        hidden_size) and the mask of ones and zeros (batch, time).
        """
        read = pooled(hidden, attention_mask, self.reads)
        return self.output(self.dropout(self.norm(self.activation(self.dense(read)))))  # type: ignore[no-any-return]


class TokenHead(nn.Module):
    """output(token), of each token for itself."""

    def __init__(self, hidden_size: int, shape: HeadShape) -> None:
        super().__init__()
        self.dropout = Dropout(shape.dropout)
        self.output = nn.Linear(hidden_size, shape.outputs)

    def forward(self, hidden: Tensor, _: Tensor | None = None) -> Tensor:
        """Return logits (batch, time, labels) for hidden states (batch, time, hidden_size)."""
        return self.output(self.dropout(hidden))  # type: ignore[no-any-return]


class PlainHead(nn.Module):
    """output(first token), or of the mean of those behind `prefix` learned ones: the classifier of ViT."""

    def __init__(self, hidden_size: int, shape: HeadShape, *, prefix: int) -> None:
        super().__init__()
        self.reads = shape.reads
        self.prefix = prefix
        self.dropout = Dropout(shape.dropout)
        self.output = nn.Linear(hidden_size, shape.outputs)

    def forward(self, hidden: Tensor, _: Tensor | None = None) -> Tensor:
        """Return logits (batch, labels) for hidden states (batch, time, hidden_size) without padding."""
        read = hidden[:, 0] if self.reads is Reads.FIRST else hidden[:, self.prefix :].mean(dim=1)
        return self.output(self.dropout(read))  # type: ignore[no-any-return]


class Projection(nn.Module):
    """x @ weight.T + bias, which no training changes; at first the `width` first numbers of x.

    It says in which directions a model answers. What learns from a teacher in these directions must keep them.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, hidden_size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.eye(width, hidden_size))
        self.register_buffer("bias", torch.zeros(width))

    def forward(self, read: Tensor) -> Tensor:
        """Return (..., width) for (..., hidden_size)."""
        return linear(read, self.weight, self.bias)


class EmbeddingHead(nn.Module):
    """The first token, or the mean of all (Reimers and Gurevych 2019), projected where the shape says so, of length 1
    where `normalized`.
    """

    def __init__(self, hidden_size: int, shape: HeadShape) -> None:
        super().__init__()
        self.reads = shape.reads
        self.projection = Projection(hidden_size, shape.width) if shape.projected else None
        self.normalized = shape.normalized

    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return embeddings (batch, width) for hidden states (batch, time, hidden_size) and the mask of ones and zeros
        (batch, time).
        """
        read = pooled(hidden, attention_mask, self.reads)
        read = read if self.projection is None else self.projection(read)
        return normalize(read, dim=-1, eps=LEAST_LENGTH) if self.normalized else read


class Perceptron(nn.Module):
    """Three linear layers with the head's activation between them."""

    def __init__(self, hidden_size: int, shape: HeadShape, *, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(hidden_size, hidden_size)
        self.second = nn.Linear(hidden_size, hidden_size)
        self.activation = make_activation(shape.activation)
        self.output = nn.Linear(hidden_size, outputs)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (..., outputs) for states (..., hidden_size)."""
        return self.output(self.activation(self.second(self.activation(self.first(hidden)))))  # type: ignore[no-any-return]


class BoxHead(nn.Module):
    """A class, or none, and a box for each of the learned tokens behind the patches (Fang et al. 2021)."""

    def __init__(self, hidden_size: int, shape: HeadShape, *, suffix: int) -> None:
        super().__init__()
        self.suffix = suffix
        self.classes = Perceptron(hidden_size, shape, outputs=len(shape.labels) + 1)
        self.boxes = Perceptron(hidden_size, shape, outputs=BOX)

    def forward(self, hidden: Tensor, _: Tensor | None = None) -> Tensor:
        """Return (batch, suffix, labels + 1 + 4) for hidden states (batch, time, hidden_size): logits of the labels and
        of none, and a box as shares of the image.
        """
        read = hidden[:, -self.suffix :]
        return torch.cat([self.classes(read), self.boxes(read).sigmoid()], dim=-1)


def pooled(hidden: Tensor, attention_mask: Tensor | None, reads: Reads) -> Tensor:
    """Return what a head reads of hidden states (batch, time, hidden_size): (batch, hidden_size), or all of them."""
    if reads is Reads.EACH:
        return hidden
    if reads is Reads.FIRST:
        return hidden[:, 0]
    if attention_mask is None:
        return hidden.mean(dim=1)
    shares = attention_mask.to(hidden.dtype) / attention_mask.sum(dim=1, keepdim=True)
    return torch.einsum("bt,bth->bh", shares, hidden)


def make_head(
    hidden_size: int, shape: HeadShape, *, norm: Norm, eps: float, image: ImageShape | None = None
) -> nn.Module:
    """Return the head of this shape; one that normalises does so as the network does. A network of an `image` has
    learned tokens before and behind the others.
    """
    prefix, suffix = (0, 0) if image is None else (image.prefix, image.suffix)
    if shape.boxes:
        return BoxHead(hidden_size, shape, suffix=suffix)
    if not shape.labels:
        return EmbeddingHead(hidden_size, shape)
    if shape.normed:
        return NormedHead(hidden_size, shape, norm=norm, eps=eps)
    if not shape.dense and not shape.tokens:
        return PlainHead(hidden_size, shape, prefix=prefix)
    return TokenHead(hidden_size, shape) if shape.tokens else ClassificationHead(hidden_size, shape)
