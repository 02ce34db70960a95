"""What a task is: how outputs are trained, scored and read. Gates, losses and export never see a task's name."""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor


class PairedTest(str, Enum):
    """How two models' per-example scores are compared: Tango's interval for 0/1 scores, or a paired bootstrap."""

    PROPORTIONS = "proportions"
    BOOTSTRAP = "bootstrap"


class Metric(NamedTuple):
    """A task's summary of per-example scores: their mean."""

    name: str
    higher_is_better: bool
    paired_test: PairedTest


class Task(Protocol):
    """A task over the rows of a table."""

    @property
    def name(self) -> str:
        """Return the task's name in recipes."""

    @property
    def metric(self) -> Metric:
        """Return the metric that the gate compares."""

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean training loss of logits (batch, outputs) against targets (batch,); -1 is unlabelled."""

    def score(self, logits: npt.NDArray[np.float32], targets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return one score per example; the metric is their mean."""

    def predict(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Return the predicted class per example."""

    def answer(self, logits: npt.NDArray[np.float32], labels: tuple[str, ...]) -> list[dict[str, Any]]:
        """Return what a person is shown per example."""
