"""What a task is: how outputs are trained, scored and read. Gates, losses and export never see a task's name.

The modules here load torch only when something is trained, so that a bundle answers on a device without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from models.columns import Wanted
from models.shape import HeadShape
from models.summary import Summary
from models.targets import NextTargets, SpanTargets, TextTargets, WordTargets, Writes

if TYPE_CHECKING:
    from torch import Tensor

    from models.data import Table
    from models.encoded import Encoded

Targets = npt.NDArray[Any]  # whole numbers with -1 for unlabelled, or floats with NaN
Logits = npt.NDArray[np.float32]  # (answers, outputs): one answer a row, or one a token, row after row
Outputs = npt.NDArray[Any]  # what a task is judged by: logits, or what `models.evaluation.outputs_of` gives instead
Floats = npt.NDArray[np.float64]
THRESHOLD = 0.5
Expected = Targets | WordTargets | SpanTargets | TextTargets | NextTargets


class PairedTest(str, Enum):
    """How two models' per-example scores are compared: Tango's interval for 0/1 scores, or a paired bootstrap."""

    PROPORTIONS = "proportions"
    BOOTSTRAP = "bootstrap"


class Shows(str, Enum):
    """How a page for browsers shows a task's answers: the rows of ANSWERS in `export/site/answers.js`."""

    CLASS = "class"
    CLASSES = "classes"
    NUMBER = "number"
    SPANS = "spans"
    EXCERPT = "excerpt"
    LIKENESS = "likeness"
    NOTHING = "nothing"


class Besides(NamedTuple):
    """A figure that is told beside a task's metric and never judged: a summary of the statistics from a column on."""

    name: str
    summary: Summary
    first: int = 0


class Metric(NamedTuple):
    """A task's figure: how the statistics of the examples are summarised, and two models compared.

    `classes` says whether an answer is one class of several, which a confusion matrix counts. A mean is that of the
    first column of the statistics; figures `besides` may have columns of their own.
    """

    name: str
    higher_is_better: bool
    paired_test: PairedTest
    summary: Summary = Summary.MEAN
    classes: bool = False
    besides: tuple[Besides, ...] = ()


# Of statistics as `models.choice.top_is_right` gives them: the mean of the classes' F1 is told beside it.
ACCURACY = Metric(
    "accuracy",
    higher_is_better=True,
    paired_test=PairedTest.PROPORTIONS,
    classes=True,
    besides=(Besides("macro_f1", Summary.CLASS_F1, 1),),
)


class Answer(NamedTuple):
    """What a model says of one input: `text` in a line for a person, `values` by name for a program (JSON values)."""

    text: str
    values: Mapping[str, Any]


class Given(NamedTuple):
    """What a model was given of one input: as a caller says it, and as the model reads it, in one window or several;
    and from which probability on something is named that may also be left out.
    """

    text: str
    pair: str | None
    windows: Sequence[Any]  # of a tokenizer, encodings
    threshold: float = THRESHOLD


class Task(Protocol):
    """A task over the rows of a table. The head gives one answer for every row or for every token."""

    @property
    def name(self) -> str:
        """Return the task's name in recipes and heads, as Hugging Face calls it."""

    @property
    def metric(self) -> Metric:
        """Return the metric that the gate compares."""

    @property
    def writes(self) -> Writes:
        """Return what its model writes; a model that writes nothing has a head."""

    @property
    def shows(self) -> Shows:
        """Return how a page for browsers shows the answers."""

    @property
    def shared(self) -> int:
        """Return how many tokens the windows share that a long second text is read in; 0 where it is cut."""

    @property
    def reading(self) -> str:
        """Return a line of Python, or a few, that print the answer in `logits` (1, outputs), for whoever receives a
        bundle; `others` are its further outputs, and `labels` gives an output's name by its number as text.
        """

    def read(self, wanted: Wanted, split: str | None) -> Table:
        """Return the rows of a file or hub data set.

        Raises:
            BadInput, BadFile: as `read_table` raises.
        """

    def head_of(self, table: Table) -> HeadShape:
        """Return the head that a network needs for these rows.

        Raises:
            BadInput: the rows' labels are not of this task.
        """

    def check(self, head: HeadShape, *, where: str) -> None:
        """Raise BadInput where a head cannot do the task; `where` names it."""

    def targets(self, table: Table, labels: tuple[str, ...]) -> Expected:
        """Return what is expected, (rows, ...) or of every word; what is unlabelled is -1 or NaN.

        Raises:
            BadInput: a label that the head does not know, or that is not of this task.
        """

    def loss(self, logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Return the training loss of logits (answers, outputs), summed over those that are labelled; `smoothing` of a
        target is shared by all classes.

        Raises:
            BadInput: the targets cannot be smoothed.
        """

    def divergence(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Return how far the student's answers (answers, outputs) are from the teacher's, summed over answers, softened
        by the temperature and scaled so that the gradient's size does not depend on it.
        """

    def statistics(self, logits: Outputs, data: Encoded, labels: tuple[str, ...]) -> Floats:
        """Return (rows, k): what the metric and the figures beside it need to know of every row, for the logits, or
        where the model writes for what `models.evaluation.outputs_of` returns.
        """

    def predict(self, logits: Outputs, data: Encoded) -> Targets:
        """Return the answers in the form of the data's targets."""

    def answer(self, logits: Sequence[Logits], labels: tuple[str, ...], given: Given) -> Answer:
        """Return what is said of one input, for the logits of each of its windows."""
