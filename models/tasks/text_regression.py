"""A number for a text or a pair of texts: how alike, how good, how likely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
import numpy.typing as npt

from models.errors import BadInput
from models.summary import Summary
from models.task import Answer, Floats, Metric, PairedTest, Targets

if TYPE_CHECKING:
    from torch import Tensor

    from models.data import Table

OUTPUT = "score"


@final
@dataclass(frozen=True, slots=True)
class TextRegression:
    """Squared error to train, the correlation of ranks to judge."""

    name: str = "text-regression"
    metric: Metric = Metric(
        "spearman", higher_is_better=True, paired_test=PairedTest.BOOTSTRAP, summary=Summary.SPEARMAN
    )
    several_labels: bool = False
    reading: str = "print(float(logits[0, 0]))"

    def labels_of(self, table: Table) -> tuple[str, ...]:
        """Return the name of the one output."""
        if table.labels is None:
            raise BadInput("there is no label column", where=table.source, fix="Name it, or give labelled data.")
        self.targets(table, (OUTPUT,))
        return (OUTPUT,)

    def check(self, labels: tuple[str, ...], *, where: str) -> None:
        """Raise BadInput where the head gives more than one number."""
        if len(labels) != 1:
            raise BadInput(f"a regression has one output, the head has {len(labels)}", where=where)

    def targets(self, table: Table, labels: tuple[str, ...]) -> Targets:
        """Return the number expected of every row, float32 (rows,)."""
        if table.labels is None:
            return np.full(len(table), np.nan, dtype=np.float32)
        for row, value in enumerate(table.labels, start=1):
            if not isinstance(value, (int, float)):
                raise BadInput(f"row {row} has the label {value!r}, which is no number", where=table.source)
        return np.array(table.labels, dtype=np.float32)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error over labelled examples; zero where there is none."""
        known = ~targets.isnan()
        if not bool(known.any()):
            return logits.sum() * 0.0
        return (logits[known, 0] - targets[known]).square().mean()

    def divergence(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Return the squared distance, summed over rows: a number cannot be softened."""
        return (student - teacher).square().sum()

    def statistics(self, logits: npt.NDArray[np.float32], targets: Targets) -> Floats:
        """Return the number given and the one expected, (rows, 2)."""
        return np.stack([logits[:, 0], targets], axis=1).astype(np.float64)

    def predict(self, logits: npt.NDArray[np.float32]) -> Targets:
        """Return the numbers given, float32 (rows,)."""
        return np.asarray(logits[:, 0], dtype=np.float32)

    def answers(self, logits: npt.NDArray[np.float32], labels: tuple[str, ...]) -> list[Answer]:
        """Return the number."""
        return [Answer(f"{row[0]:.4g}", {labels[0]: float(row[0])}) for row in logits]
