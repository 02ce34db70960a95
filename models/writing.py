"""What the tasks that write have in common, and those of them that write a text behind a source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from models.choice import class_loss, softened_divergence
from models.columns import Wanted
from models.errors import BadInput, Unsupported
from models.shape import HeadShape, ModelShape
from models.targets import TextTargets, Writes
from models.task import Answer, Floats, Given, Logits, Metric, Outputs, Shows, Targets

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from models.data import Table
    from models.encoded import Encoded

NEXT_TOKEN = "print(int(logits[0, -1].argmax()))  # the number of the likeliest next token"


@final
@dataclass(frozen=True, slots=True)
class BehindSource:
    """A task that writes a text behind a source: cross-entropy of every token to train, where of several texts that are
    right the first is learnt, and what is written beside all of them to judge.

    `scores` gives of a text and those that are right what the metric and the figures beside it need to know.
    """

    name: str
    metric: Metric
    scores: Callable[[str, Sequence[str]], Sequence[float]]
    reading: str = NEXT_TOKEN
    shared: int = 0
    shows: Shows = Shows.NOTHING
    writes: Writes = Writes.BEHIND_SOURCE

    def read(self, wanted: Wanted, split: str | None) -> Table:
        """Return texts, each with those that are right behind it or all without."""
        from models.parallel import read_written

        return read_written(wanted, split)

    def head_of(self, table: Table) -> HeadShape:
        """Raise BadInput: a model that writes has no head."""
        return no_head(self.name, where=table.source)

    def check(self, head: HeadShape, *, where: str) -> None:
        """Raise BadInput: a model that writes has no head."""
        no_head(self.name, where=where)

    def targets(self, table: Table, labels: tuple[str, ...]) -> TextTargets:
        """Return the first text that is right for every row."""
        return expected_texts(table)

    def loss(self, logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Return the cross-entropy, summed over tokens."""
        return summed_loss(logits, targets, smoothing=smoothing)

    def divergence(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Return the divergence of softened outputs (Hinton et al. 2015), summed over tokens."""
        return softened_divergence(student, teacher, temperature=temperature)

    def statistics(self, logits: Outputs, data: Encoded, labels: tuple[str, ...]) -> Floats:
        """Return the scores of every row."""
        pairs = zip(texts_written(logits, data), right_texts(data), strict=True)
        return np.array([self.scores(text, right) for text, right in pairs], dtype=np.float64)

    def predict(self, logits: Outputs, data: Encoded) -> Targets:
        """Return what was given: it is no class."""
        return logits

    def answer(self, logits: Sequence[Logits], labels: tuple[str, ...], given: Given) -> Answer:
        """Raise Unsupported: what is written is not made of logits."""
        raise not_answered(self.name)


def summed_loss(logits: Tensor, targets: Tensor, *, smoothing: float) -> Tensor:
    """Return the cross-entropy of logits (tokens, words) and targets (tokens, 1), summed over tokens."""
    return class_loss(logits, targets[..., 0], smoothing=smoothing)


def require_writer(shape: ModelShape, writes: Writes, *, asked: str, where: str) -> None:
    """Raise BadInput where a model cannot write what a task asks for."""
    behind = shape.decoder is not None
    if shape.output is None:
        raise BadInput(f"{asked} needs a model that writes, and this one does not", where=where)
    if behind is not (writes is Writes.BEHIND_SOURCE):
        needs = "a model that reads a source and writes behind it" if not behind else "a model that goes on from a text"
        raise BadInput(f"{asked} needs {needs}", where=where)


def no_head(asked: str, *, where: str) -> HeadShape:
    """Raise BadInput: no head is made for what writes."""
    raise BadInput(f"{asked} is written, and no head answers it", where=where, fix="Give a model that writes.")


def not_answered(asked: str) -> Unsupported:
    """Return the error that what is written is no answer that logits give."""
    return Unsupported(f"the answer of {asked} is written word by word, and not made of logits", where="predict")


def expected_texts(table: Table) -> TextTargets:
    """Return the first text that is right for each row.

    Raises:
        BadInput: a row's label is no text.
    """
    if table.labels is None:
        return TextTargets(None)
    return TextTargets([_texts(label, row, table)[0] for row, label in enumerate(table.labels, start=1)])


def right_texts(data: Encoded) -> list[tuple[str, ...]]:
    """Return all texts that are right for each row.

    Raises:
        BadInput: they are not known.
    """
    table = data.table
    if table is None or table.labels is None:
        raise BadInput("nothing says what should be written, so nothing can be judged", where="data")
    return [_texts(table.labels[row], row + 1, table) for row in data.examples.tolist()]


def texts_written(outputs: npt.NDArray[Any], data: Encoded) -> list[str]:
    """Return the texts of token numbers (rows, longest) as `models.evaluation.written_tokens` returns them."""
    tokens: npt.NDArray[np.int32] = outputs
    rows = [line[line >= 0].tolist() for line in tokens]
    return [text.strip() for text in data.written.tokenizing.decoded(rows)]


def _texts(label: object, row: int, table: Table) -> tuple[str, ...]:
    texts = label if isinstance(label, tuple) else (label,)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise BadInput(f"row {row} has {label!r}, which is no text to write", where=table.source)
    return texts
