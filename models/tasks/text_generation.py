"""What a text goes on with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from models.choice import softened_divergence
from models.columns import Wanted
from models.shape import HeadShape
from models.summary import Summary
from models.targets import NextTargets, Writes
from models.task import Answer, Besides, Floats, Given, Logits, Metric, Outputs, PairedTest, Shows, Targets
from models.writing import NEXT_TOKEN, no_head, not_answered, summed_loss

if TYPE_CHECKING:
    from torch import Tensor

    from models.data import Table
    from models.encoded import Encoded


@final
@dataclass(frozen=True, slots=True)
class TextGeneration:
    """Cross-entropy of every token to train; its mean, in nats a token, to judge, and perplexity besides. Running text
    is read in blocks. A point of the accuracy gate is 0.01 nats, that is, one percent of perplexity.
    """

    name: str = "text-generation"
    metric: Metric = Metric(
        "token_loss",
        higher_is_better=False,
        paired_test=PairedTest.BOOTSTRAP,
        summary=Summary.PER_TOKEN,
        besides=(Besides("perplexity", Summary.PERPLEXITY),),
    )
    reading: str = NEXT_TOKEN
    shared: int = 0
    shows: Shows = Shows.NOTHING
    writes: Writes = Writes.ON

    def read(self, wanted: Wanted, split: str | None) -> Table:
        """Return documents of running text."""
        from models.parallel import read_running

        return read_running(wanted, split)

    def head_of(self, table: Table) -> HeadShape:
        """Raise BadInput: a model that writes has no head."""
        return no_head(self.name, where=table.source)

    def check(self, head: HeadShape, *, where: str) -> None:
        """Raise BadInput: a model that writes has no head."""
        no_head(self.name, where=where)

    def targets(self, table: Table, labels: tuple[str, ...]) -> NextTargets:
        """Return that every token is expected behind those before it."""
        return NextTargets()

    def loss(self, logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Return the cross-entropy, summed over tokens."""
        return summed_loss(logits, targets, smoothing=smoothing)

    def divergence(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Return the divergence of softened outputs (Hinton et al. 2015), summed over tokens."""
        return softened_divergence(student, teacher, temperature=temperature)

    def statistics(self, logits: Outputs, data: Encoded, labels: tuple[str, ...]) -> Floats:
        """Return what the tokens of every block cost together, and how many it has as they are counted, (blocks, 2)."""
        _, blocks = np.unique(data.examples, return_inverse=True)
        of_token = np.repeat(blocks, data.lengths)
        costs, counted = (np.bincount(of_token, weights=one) for one in (logits[:, 0], data.targets[:, 2]))
        return np.stack([costs, counted], axis=1).astype(np.float64)

    def predict(self, logits: Outputs, data: Encoded) -> Targets:
        """Return what was given: it is no class."""
        return logits

    def answer(self, logits: Sequence[Logits], labels: tuple[str, ...], given: Given) -> Answer:
        """Raise Unsupported: what is written is not made of logits."""
        raise not_answered(self.name)
