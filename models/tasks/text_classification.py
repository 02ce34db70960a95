"""One label for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from models.choice import class_loss, likeliest, require_choice, softened_divergence, top_is_right, top_labels
from models.columns import Wanted
from models.labels import class_targets, label_names
from models.shape import HeadShape
from models.targets import Writes
from models.task import ACCURACY, Answer, Floats, Given, Logits, Metric, Shows, Targets

if TYPE_CHECKING:
    from torch import Tensor

    from models.data import Table
    from models.encoded import Encoded


@final
@dataclass(frozen=True, slots=True)
class TextClassification:
    """Cross-entropy to train, accuracy to judge, macro F1 beside it."""

    name: str = "text-classification"
    metric: Metric = ACCURACY
    reading: str = "print(labels[str(int(logits[0].argmax()))])"
    shared: int = 0
    shows: Shows = Shows.CLASS
    writes: Writes = Writes.NOTHING

    def read(self, wanted: Wanted, split: str | None) -> Table:
        """Return the rows, each with a label or all without."""
        from models.data import read_table

        return read_table(wanted, split)

    def head_of(self, table: Table) -> HeadShape:
        """Return a head for the distinct labels, numbers in numerical order."""
        return HeadShape(label_names(table), task=self.name)

    def check(self, head: HeadShape, *, where: str) -> None:
        """Raise BadInput where there is nothing to choose from."""
        require_choice(head, asked=self.name, of="text", where=where)

    def targets(self, table: Table, labels: tuple[str, ...]) -> Targets:
        """Return the number of every row's class, int64 (rows,)."""
        return np.array(class_targets(table, labels), dtype=np.int64)

    def loss(self, logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Return the cross-entropy, summed over labelled rows."""
        return class_loss(logits, targets, smoothing=smoothing)

    def divergence(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Return the divergence of softened outputs (Hinton et al. 2015), summed over rows."""
        return softened_divergence(student, teacher, temperature=temperature)

    def statistics(self, logits: Logits, data: Encoded, labels: tuple[str, ...]) -> Floats:
        """Return 1 where the top label is right, else 0, its number and that of the right one; (rows, 3)."""
        return top_is_right(logits, data.targets)

    def predict(self, logits: Logits, data: Encoded) -> Targets:
        """Return the number of the top label of every row, int64 (rows,)."""
        return top_labels(logits)

    def answer(self, logits: Sequence[Logits], labels: tuple[str, ...], given: Given) -> Answer:
        """Return the likeliest label and the probability of every label."""
        label, shares = likeliest(logits[0][0], labels)
        return Answer(f"{label}\t{shares[label]:.1%}", {"label": label, "probabilities": shares})
