"""A text in another language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from models.choice import class_loss, softened_divergence
from models.columns import Wanted
from models.overlap import BLEU_COUNTS, bleu_counts, chrf_counts
from models.shape import HeadShape
from models.summary import Summary
from models.targets import TextTargets, Writes
from models.task import Answer, Besides, Floats, Given, Logits, Metric, Outputs, PairedTest, Targets
from models.writing import expected_texts, no_head, not_answered, right_texts, texts_written

if TYPE_CHECKING:
    from torch import Tensor

    from models.data import Table
    from models.encoded import Encoded


@final
@dataclass(frozen=True, slots=True)
class Translation:
    """Cross-entropy of every token to train; BLEU of what is written, as sacreBLEU computes it, to judge, and chrF
    besides. Of several texts that are right the first is learnt.
    """

    name: str = "translation"
    metric: Metric = Metric(
        "bleu",
        higher_is_better=True,
        paired_test=PairedTest.BOOTSTRAP,
        summary=Summary.BLEU,
        besides=(Besides("chrf", Summary.CHRF, BLEU_COUNTS),),
    )
    reading: str = "print(int(logits[0, -1].argmax()))  # the number of the likeliest next token"
    shared: int = 0
    writes: Writes = Writes.BEHIND_SOURCE

    def read(self, wanted: Wanted, split: str | None) -> Table:
        """Return texts, each with its translations or all without."""
        from models.parallel import read_written

        return read_written(wanted, split)

    def head_of(self, table: Table) -> HeadShape:
        """Raise BadInput: a model that writes has no head."""
        return no_head(self.name, where=table.source)

    def check(self, head: HeadShape, *, where: str) -> None:
        """Raise BadInput: a model that writes has no head."""
        no_head(self.name, where=where)

    def targets(self, table: Table, labels: tuple[str, ...]) -> TextTargets:
        """Return the first text that is right for every row."""
        return expected_texts(table)

    def loss(self, logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Return the cross-entropy, summed over tokens."""
        return class_loss(logits, targets[..., 0], smoothing=smoothing)

    def divergence(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Return the divergence of softened outputs (Hinton et al. 2015), summed over tokens."""
        return softened_divergence(student, teacher, temperature=temperature)

    def statistics(self, logits: Outputs, data: Encoded, labels: tuple[str, ...]) -> Floats:
        """Return the counts of BLEU and behind them those of chrF of every row."""
        pairs = zip(texts_written(logits, data), right_texts(data), strict=True)
        counts = [[*bleu_counts(text, right), *chrf_counts(text, right)] for text, right in pairs]
        return np.array(counts, dtype=np.float64)

    def predict(self, logits: Outputs, data: Encoded) -> Targets:
        """Return what was given: it is no class."""
        return logits

    def answer(self, logits: Sequence[Logits], labels: tuple[str, ...], given: Given) -> Answer:
        """Raise Unsupported: what is written is not made of logits."""
        raise not_answered(self.name)
