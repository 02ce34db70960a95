"""Any number of labels for a text or a pair of texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
import numpy.typing as npt

from models.columns import listed
from models.errors import BadInput, nearest
from models.summary import Summary
from models.task import Answer, Floats, Metric, PairedTest, Targets

if TYPE_CHECKING:
    from torch import Tensor

    from models.data import Table


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
    several_labels: bool = True
    reading: str = "print([labels[str(number)] for number in np.flatnonzero(logits[0] > 0)])"

    def labels_of(self, table: Table) -> tuple[str, ...]:
        """Return the distinct labels in the order of the alphabet."""
        if table.labels is None:
            raise BadInput("there is no label column", where=table.source, fix="Name it, or give labelled data.")
        found = sorted({label for row in table.labels for label in _several(row)})
        if not found:
            raise BadInput("no row has a label", where=table.source)
        return tuple(found)

    def check(self, labels: tuple[str, ...], *, where: str) -> None:
        """Raise BadInput where there is no label to give."""
        if not labels:
            raise BadInput("the head has no labels", where=where)

    def targets(self, table: Table, labels: tuple[str, ...]) -> Targets:
        """Return 1 for every label of a row and 0 for the others, float32 (rows, labels)."""
        if table.labels is None:
            return np.full((len(table), len(labels)), np.nan, dtype=np.float32)
        numbers = {label: number for number, label in enumerate(labels)}
        targets = np.zeros((len(table), len(labels)), dtype=np.float32)
        for row, value in enumerate(table.labels):
            for label in _several(value):
                if label not in numbers:
                    raise BadInput(
                        f"row {row + 1} has the label {label!r}, which is not known",
                        where=table.source,
                        fix=f"Known labels: {listed(labels)}.{nearest(label, labels)}",
                    )
                targets[row, numbers[label]] = 1.0
        return targets

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over labels and labelled examples of the binary cross-entropy; zero where there is none."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        known = ~targets[:, 0].isnan()
        if not bool(known.any()):
            return logits.sum() * 0.0
        return binary_cross_entropy_with_logits(logits[known], targets[known])

    def divergence(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Return T^2 * KL(teacher || student) of every softened label for itself, summed over labels and rows."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        wanted = (teacher / temperature).sigmoid()
        crossed, least = (
            binary_cross_entropy_with_logits(logits / temperature, wanted, reduction="sum")
            for logits in (student, teacher)
        )
        return (crossed - least) * temperature**2

    def statistics(self, logits: npt.NDArray[np.float32], targets: Targets) -> Floats:
        """Return for every label whether it is rightly given, given, and expected; (rows, 3 * labels)."""
        given, expected = logits > 0, np.asarray(targets) > 0
        return np.stack([given & expected, given, expected], axis=2).reshape(len(logits), -1).astype(np.float64)

    def predict(self, logits: npt.NDArray[np.float32]) -> Targets:
        """Return 1 for every label given and 0 for the others, float32 (rows, labels)."""
        return np.asarray(logits > 0, dtype=np.float32)

    def answers(self, logits: npt.NDArray[np.float32], labels: tuple[str, ...]) -> list[Answer]:
        """Return the labels given and the probability of every label."""
        return [self._answer(row, labels) for row in 1 / (1 + np.exp(-logits.astype(np.float64)))]

    def _answer(self, shares: Floats, labels: tuple[str, ...]) -> Answer:
        probabilities = {label: float(share) for label, share in zip(labels, shares, strict=True)}
        given = [label for label, share in probabilities.items() if share > 0.5]
        return Answer(", ".join(given) or "(none)", {"labels": given, "probabilities": probabilities})


def _several(label: object) -> tuple[str, ...]:
    """Return the labels of a row: a list as it stands, text taken apart at every bar."""
    if isinstance(label, tuple):
        return tuple(str(one) for one in label)
    return tuple(part for part in str(label).split("|") if part)
