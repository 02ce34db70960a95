"""Numbers for a text, near each other where texts mean the same: search, clustering, sameness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt

from models.choice import require_plain
from models.columns import Wanted
from models.errors import BadInput
from models.shape import HeadShape
from models.summary import Summary
from models.targets import Writes
from models.task import Answer, Besides, Floats, Given, Logits, Metric, PairedTest, Shows, Targets

if TYPE_CHECKING:
    from torch import Tensor

    from models.data import Table
    from models.encoded import Encoded

SHOWN = 6  # numbers of an embedding in a line for a person


@final
@dataclass(frozen=True, slots=True)
class SentenceEmbedding:
    """Learnt from a teacher's embeddings of any texts; judged by pairs of texts with a number that says how alike they
    are: the correlation of its ranks with those of the cosines.

    Every text is a row. Of a pair, which is two rows, the second one has the number.
    """

    name: str = "sentence-embedding"
    metric: Metric = Metric(
        "spearman",
        higher_is_better=True,
        paired_test=PairedTest.BOOTSTRAP,
        summary=Summary.SPEARMAN,
        besides=(Besides("pearson", Summary.PEARSON),),
    )
    reading: str = "print(logits[0])"
    shared: int = 0
    shows: Shows = Shows.LIKENESS
    writes: Writes = Writes.NOTHING

    def read(self, wanted: Wanted, split: str | None) -> Table:
        """Return texts, those of a pair one after the other; what a text alone is labelled with means nothing."""
        from models.data import read_table

        table = read_table(wanted, split)
        if table.pairs is None:
            return replace(table, labels=None)
        labels = None if table.labels is None else _twice(table.labels, table.labels)
        return replace(table, texts=_twice(table.texts, table.pairs), pairs=None, labels=labels)

    def head_of(self, table: Table) -> HeadShape:
        """Raise BadInput: no head is made of labels."""
        raise BadInput(
            "sentence embeddings are learnt from a teacher, not from labels",
            where=table.source,
            fix="Give a sentence-transformers directory as --teacher, and no train stage.",
        )

    def check(self, head: HeadShape, *, where: str) -> None:
        """Raise BadInput where the head gives no embedding."""
        if head.labels:
            raise BadInput(
                f"an embedding is asked for, and this head gives {len(head.labels)} labels",
                where=where,
                fix=head.unlike(self.name),
            )

    def targets(self, table: Table, labels: tuple[str, ...]) -> Targets:
        """Return how alike the row's text and the one before are, float32 (rows,); NaN for the first of a pair."""
        found = np.full(len(table), np.nan, dtype=np.float32)
        for row, value in enumerate(table.labels or ()):
            if not isinstance(value, (int, float)):
                raise BadInput(f"row {row // 2 + 1} has the label {value!r}, which is no number", where=table.source)
            found[row] = value if row % 2 else np.nan
        return found

    def loss(self, logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Raise BadInput: what a row has learnt is not in its label."""
        require_plain(smoothing, task=self.name)
        raise BadInput("sentence embeddings have no loss on labels", where="losses.labels", fix="Set its weight to 0.")

    def divergence(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Return the squared distance from the teacher's direction, and from its cosines with the other texts of the
        batch (their mean), summed over texts: where a text lies, and where it lies among others. Nothing is softened.
        Where the teacher has another number of dimensions, a text lies among others alone.
        """
        from torch.nn.functional import normalize

        ours, theirs = (normalize(each.float(), dim=-1) for each in (student, teacher))
        among = (ours @ ours.t() - theirs @ theirs.t()).square().mean(dim=-1)
        if ours.shape[-1] != theirs.shape[-1]:
            return among.sum()
        return ((ours - theirs).square().sum(dim=-1) + among).sum()

    def statistics(self, logits: Logits, data: Encoded, labels: tuple[str, ...]) -> Floats:
        """Return the cosine of each pair, and how alike it should be, (pairs, 2)."""
        return np.stack([_cosines(logits), np.asarray(data.targets)[1::2]], axis=1).astype(np.float64)

    def predict(self, logits: Logits, data: Encoded) -> Targets:
        """Return the cosine of each pair in its second row, float32 (rows,)."""
        found = np.full(len(logits), np.nan, dtype=np.float32)
        found[1::2] = _cosines(logits)
        return found

    def answer(self, logits: Sequence[Logits], labels: tuple[str, ...], given: Given) -> Answer:
        """Return the embedding."""
        numbers = [float(value) for value in logits[0][0]]
        shown = " ".join(f"{value:.4f}" for value in numbers[:SHOWN])
        return Answer(f"{shown} ... ({len(numbers)} numbers)", {"embedding": numbers})


def _twice(first: list[Any], second: list[Any]) -> list[Any]:
    return [one for both in zip(first, second, strict=True) for one in both]


def _cosines(embeddings: Logits) -> npt.NDArray[np.float64]:
    """Return (pairs,) the cosine of every second embedding with the one before it; 0 where one of them is nothing."""
    each = embeddings.astype(np.float64)
    product = (each[0::2] * each[1::2]).sum(axis=1)
    size = np.linalg.norm(each[0::2], axis=1) * np.linalg.norm(each[1::2], axis=1)
    found: npt.NDArray[np.float64] = np.divide(product, size, out=np.zeros_like(product), where=size > 0)
    return found
