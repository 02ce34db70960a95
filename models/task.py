"""What a task is: how outputs are trained, scored and read. Gates, losses and export never see a task's name.

The modules here load torch only when something is trained, so that a bundle answers on a device without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from models.summary import Summary

if TYPE_CHECKING:
    from torch import Tensor

    from models.data import Table

Targets = npt.NDArray[Any]  # (rows, ...): whole numbers with -1 for unlabelled, or floats with NaN
Floats = npt.NDArray[np.float64]


class PairedTest(str, Enum):
    """How two models' per-example scores are compared: Tango's interval for 0/1 scores, or a paired bootstrap."""

    PROPORTIONS = "proportions"
    BOOTSTRAP = "bootstrap"


class Metric(NamedTuple):
    """A task's figure: how the statistics of the examples are summarised, and two models compared.

    `classes` says whether an answer is one class of several, which a confusion matrix counts.
    """

    name: str
    higher_is_better: bool
    paired_test: PairedTest
    summary: Summary = Summary.MEAN
    classes: bool = False


class Answer(NamedTuple):
    """What a model says of one input: `text` in a line for a person, `values` by name for a program (JSON values)."""

    text: str
    values: Mapping[str, Any]


class Task(Protocol):
    """A task over the rows of a table. An output is what the head gives for a row: one logit per label."""

    @property
    def name(self) -> str:
        """Return the task's name in recipes and heads, as Hugging Face calls it."""

    @property
    def metric(self) -> Metric:
        """Return the metric that the gate compares."""

    @property
    def several_labels(self) -> bool:
        """Return whether a row may have any number of labels."""

    @property
    def reading(self) -> str:
        """Return a line of Python that prints the answer in `logits` (1, outputs), for whoever receives a bundle;
        `labels` gives an output's name by its number as text.
        """

    def labels_of(self, table: Table) -> tuple[str, ...]:
        """Return the names of the outputs that a new head for these rows needs.

        Raises:
            BadInput: the rows' labels are not of this task.
        """

    def check(self, labels: tuple[str, ...], *, where: str) -> None:
        """Raise BadInput where a head of these outputs cannot do the task; `where` names it."""

    def targets(self, table: Table, labels: tuple[str, ...]) -> Targets:
        """Return what is expected of every row, (rows, ...); unlabelled rows are -1 or NaN.

        Raises:
            BadInput: a label that the head does not know, or that is not of this task.
        """

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean training loss of logits (batch, outputs) over the labelled rows; zero where there is none."""

    def divergence(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Return how far the student's answers (batch, outputs) are from the teacher's, summed over rows, softened by
        the temperature and scaled so that the gradient's size does not depend on it.
        """

    def statistics(self, logits: npt.NDArray[np.float32], targets: Targets) -> Floats:
        """Return (rows, k): what the metric needs to know of every row."""

    def predict(self, logits: npt.NDArray[np.float32]) -> Targets:
        """Return the answers in the form of targets."""

    def answers(self, logits: npt.NDArray[np.float32], labels: tuple[str, ...]) -> list[Answer]:
        """Return what is said of every row."""
