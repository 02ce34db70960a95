"""A number for a text or a pair of texts: how alike, how good, how likely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from models.choice import require_plain
from models.columns import Wanted
from models.errors import BadInput
from models.labels import labels_of
from models.shape import HeadShape
from models.summary import Summary
from models.targets import Writes
from models.task import Answer, Besides, Floats, Given, Logits, Metric, PairedTest, Shows, Targets

if TYPE_CHECKING:
    from torch import Tensor

    from models.data import Table
    from models.encoded import Encoded

OUTPUT = "score"


@final
@dataclass(frozen=True, slots=True)
class TextRegression:
    """Squared error to train, the correlation of ranks to judge."""

    name: str = "text-regression"
    metric: Metric = Metric(
        "spearman",
        higher_is_better=True,
        paired_test=PairedTest.BOOTSTRAP,
        summary=Summary.SPEARMAN,
        besides=(Besides("pearson", Summary.PEARSON),),
    )
    reading: str = "print(float(logits[0, 0]))"
    shared: int = 0
    shows: Shows = Shows.NUMBER
    writes: Writes = Writes.NOTHING

    def read(self, wanted: Wanted, split: str | None) -> Table:
        """Return the rows, each with a number or all without."""
        from models.data import read_table

        return read_table(wanted, split)

    def head_of(self, table: Table) -> HeadShape:
        """Return a head of one output."""
        labels_of(table)
        self.targets(table, (OUTPUT,))
        return HeadShape((OUTPUT,), task=self.name)

    def check(self, head: HeadShape, *, where: str) -> None:
        """Raise BadInput where the head gives more than one number."""
        if len(head.labels) != 1 or head.tokens:
            raise BadInput(
                f"a regression of texts has one output, and this head has {len(head.labels)} for each "
                f"{'token' if head.tokens else 'text'}",
                where=where,
                fix=head.unlike(self.name),
            )

    def targets(self, table: Table, labels: tuple[str, ...]) -> Targets:
        """Return the number expected of every row, float32 (rows,)."""
        if table.labels is None:
            return np.full(len(table), np.nan, dtype=np.float32)
        for row, value in enumerate(table.labels, start=1):
            if not isinstance(value, (int, float)):
                raise BadInput(f"row {row} has the label {value!r}, which is no number", where=table.source)
        return np.array(table.labels, dtype=np.float32)

    def loss(self, logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Return the squared error, summed over labelled rows."""
        require_plain(smoothing, task=self.name)
        known = ~targets.isnan()
        return (logits[known, 0] - targets[known]).square().sum()

    def divergence(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Return the squared distance, summed over rows: a number cannot be softened."""
        return (student - teacher).square().sum()

    def statistics(self, logits: Logits, data: Encoded, labels: tuple[str, ...]) -> Floats:
        """Return the number given and the one expected, (rows, 2)."""
        return np.stack([logits[:, 0], data.targets], axis=1).astype(np.float64)

    def predict(self, logits: Logits, data: Encoded) -> Targets:
        """Return the numbers given, float32 (rows,)."""
        return np.asarray(logits[:, 0], dtype=np.float32)

    def answer(self, logits: Sequence[Logits], labels: tuple[str, ...], given: Given) -> Answer:
        """Return the number."""
        value = float(logits[0][0, 0])
        return Answer(f"{value:.4g}", {labels[0]: value})
