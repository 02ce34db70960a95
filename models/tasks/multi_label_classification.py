"""Any number of labels for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from models.choice import require_plain
from models.columns import Wanted
from models.errors import BadInput
from models.labels import labels_of, unknown
from models.shape import HeadShape
from models.summary import Summary
from models.targets import Writes
from models.task import Answer, Floats, Given, Logits, Metric, PairedTest, Shows, Targets

if TYPE_CHECKING:
    from torch import Tensor

    from models.data import Table
    from models.encoded import Encoded


@final
@dataclass(frozen=True, slots=True)
class MultiLabelClassification:
    """Cross-entropy of every label for itself to train, macro-averaged F1 to judge; a label is given from a probability
    of one half on.
    """

    name: str = "multi-label-classification"
    metric: Metric = Metric(
        "macro_f1", higher_is_better=True, paired_test=PairedTest.BOOTSTRAP, summary=Summary.MACRO_F1
    )
    reading: str = "print([labels[str(number)] for number in np.flatnonzero(logits[0] > 0)])"
    shared: int = 0
    shows: Shows = Shows.CLASSES
    writes: Writes = Writes.NOTHING

    def read(self, wanted: Wanted, split: str | None) -> Table:
        """Return the rows, each with its labels (none of them too) or all without."""
        from models.data import read_table

        return read_table(wanted, split, several=True)

    def head_of(self, table: Table) -> HeadShape:
        """Return a head for the distinct labels, in the order of the alphabet."""
        found = sorted({label for row in labels_of(table) for label in _several(row)})
        if not found:
            raise BadInput("no row has a label", where=table.source)
        return HeadShape(tuple(found), task=self.name)

    def check(self, head: HeadShape, *, where: str) -> None:
        """Raise BadInput where the head answers tokens."""
        if head.tokens:
            raise BadInput(
                "labels of texts are asked for, and this head answers tokens",
                where=where,
                fix=f"Its own task is {head.task}.",
            )

    def targets(self, table: Table, labels: tuple[str, ...]) -> Targets:
        """Return 1 for every label of a row and 0 for the others, float32 (rows, labels)."""
        if table.labels is None:
            return np.full((len(table), len(labels)), np.nan, dtype=np.float32)
        numbers = {label: number for number, label in enumerate(labels)}
        targets = np.zeros((len(table), len(labels)), dtype=np.float32)
        for row, value in enumerate(table.labels):
            for label in _several(value):
                if label not in numbers:
                    raise unknown(label, row + 1, table, labels)
                targets[row, numbers[label]] = 1.0
        return targets

    def loss(self, logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Return the binary cross-entropy, the mean over labels summed over labelled rows."""
        require_plain(smoothing, task=self.name)
        from torch.nn.functional import binary_cross_entropy_with_logits

        known = ~targets[:, 0].isnan()
        return binary_cross_entropy_with_logits(logits[known], targets[known], reduction="sum") / logits.shape[1]

    def divergence(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Return T^2 * KL(teacher || student) of every softened label for itself, summed over labels and rows."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        wanted = (teacher / temperature).sigmoid()
        crossed, least = (
            binary_cross_entropy_with_logits(logits / temperature, wanted, reduction="sum")
            for logits in (student, teacher)
        )
        return (crossed - least) * temperature**2

    def statistics(self, logits: Logits, data: Encoded, labels: tuple[str, ...]) -> Floats:
        """Return for every label whether it is rightly given, given, and expected; (rows, 3 * labels)."""
        given, expected = logits > 0, np.asarray(data.targets) > 0
        return np.stack([given & expected, given, expected], axis=2).reshape(len(logits), -1).astype(np.float64)

    def predict(self, logits: Logits, data: Encoded) -> Targets:
        """Return 1 for every label given and 0 for the others, float32 (rows, labels)."""
        return np.asarray(logits > 0, dtype=np.float32)

    def answer(self, logits: Sequence[Logits], labels: tuple[str, ...], given: Given) -> Answer:
        """Return the labels given and the probability of every label."""
        shares = 1 / (1 + np.exp(-logits[0][0].astype(np.float64)))
        probabilities = {label: float(share) for label, share in zip(labels, shares, strict=True)}
        likely = [label for label, share in probabilities.items() if share > given.threshold]
        return Answer(", ".join(likely) or "(none)", {"labels": likely, "probabilities": probabilities})


def _several(label: object) -> tuple[str, ...]:
    """Return the labels of a row: a list as it stands, text taken apart at every bar."""
    if isinstance(label, tuple):
        return tuple(str(one) for one in label)
    return tuple(part for part in str(label).split("|") if part)
