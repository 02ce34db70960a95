"""One label for a text or a pair of texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.nn.functional import cross_entropy

from models.task import Metric, PairedTest


@final
@dataclass(frozen=True, slots=True)
class TextClassification:
    """Cross-entropy to train, accuracy to judge."""

    name: str = "text-classification"
    metric: Metric = Metric("accuracy", higher_is_better=True, paired_test=PairedTest.PROPORTIONS)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy over labelled examples; zero where there is none."""
        if bool((targets < 0).all()):
            return logits.sum() * 0.0
        return cross_entropy(logits, targets, ignore_index=-1)

    def score(self, logits: npt.NDArray[np.float32], targets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return 1 where the top label is right, else 0."""
        return np.asarray(self.predict(logits) == targets, dtype=np.float64)

    def predict(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Return the number of the top label per example."""
        return np.asarray(logits.argmax(axis=1), dtype=np.int64)

    def answer(self, logits: npt.NDArray[np.float32], labels: tuple[str, ...]) -> list[dict[str, Any]]:
        """Return label, probability and all probabilities per example."""
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares = shifted / shifted.sum(axis=1, keepdims=True)
        return [
            {
                "label": labels[int(row.argmax())],
                "probability": float(row.max()),
                "probabilities": {label: float(share) for label, share in zip(labels, row, strict=True)},
            }
            for row in shares
        ]
