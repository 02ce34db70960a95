"""One label for a text or a pair of texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
import numpy.typing as npt

from models.errors import BadInput
from models.labels import class_targets, label_names
from models.task import Answer, Floats, Metric, PairedTest, Targets

if TYPE_CHECKING:
    from torch import Tensor

    from models.data import Table


@final
@dataclass(frozen=True, slots=True)
class TextClassification:
    """Cross-entropy to train, accuracy to judge."""

    name: str = "text-classification"
    metric: Metric = Metric("accuracy", higher_is_better=True, paired_test=PairedTest.PROPORTIONS, classes=True)
    several_labels: bool = False
    reading: str = "print(labels[str(int(logits[0].argmax()))])"

    def labels_of(self, table: Table) -> tuple[str, ...]:
        """Return the distinct labels, numbers in numerical order."""
        return label_names(table)

    def check(self, labels: tuple[str, ...], *, where: str) -> None:
        """Raise BadInput where there is nothing to choose from."""
        if len(labels) < 2:
            raise BadInput(
                f"a classifier needs two labels, the head has {len(labels)}", where=where, fix="Is it a regression?"
            )

    def targets(self, table: Table, labels: tuple[str, ...]) -> Targets:
        """Return the number of every row's class, int64 (rows,)."""
        return np.array(class_targets(table, labels), dtype=np.int64)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy over labelled examples; zero where there is none."""
        from torch.nn.functional import cross_entropy

        if bool((targets < 0).all()):
            return logits.sum() * 0.0
        return cross_entropy(logits, targets, ignore_index=-1)

    def divergence(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Return T^2 * KL(teacher || student) of softened outputs (Hinton et al. 2015), summed over rows."""
        from torch.nn.functional import kl_div, log_softmax

        ours, theirs = (log_softmax(logits / temperature, dim=-1) for logits in (student, teacher))
        return kl_div(ours, theirs, reduction="sum", log_target=True) * temperature**2

    def statistics(self, logits: npt.NDArray[np.float32], targets: Targets) -> Floats:
        """Return 1 where the top label is right, else 0; (rows, 1)."""
        return np.asarray(self.predict(logits) == targets, dtype=np.float64)[:, None]

    def predict(self, logits: npt.NDArray[np.float32]) -> Targets:
        """Return the number of the top label of every row, int64 (rows,)."""
        return np.asarray(logits.argmax(axis=1), dtype=np.int64)

    def answers(self, logits: npt.NDArray[np.float32], labels: tuple[str, ...]) -> list[Answer]:
        """Return the likeliest label and the probability of every label."""
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        return [self._answer(row, labels) for row in raised / raised.sum(axis=1, keepdims=True)]

    def _answer(self, shares: npt.NDArray[np.float32], labels: tuple[str, ...]) -> Answer:
        top = int(shares.argmax())
        probabilities = {label: float(share) for label, share in zip(labels, shares, strict=True)}
        return Answer(f"{labels[top]}\t{shares[top]:.1%}", {"label": labels[top], "probabilities": probabilities})
