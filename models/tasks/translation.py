"""A text in another language."""

from __future__ import annotations

from collections.abc import Sequence

from models.overlap import BLEU_COUNTS, bleu_counts, chrf_counts
from models.summary import Summary
from models.task import Besides, Metric, PairedTest
from models.writing import BehindSource


def counts_of(text: str, right: Sequence[str]) -> list[int]:
    """Return the counts of BLEU, and behind them those of chrF."""
    return [*bleu_counts(text, right), *chrf_counts(text, right)]


# BLEU of what is written, as sacreBLEU computes it, to judge, and chrF besides.
TRANSLATION = BehindSource(
    name="translation",
    metric=Metric(
        "bleu",
        higher_is_better=True,
        paired_test=PairedTest.BOOTSTRAP,
        summary=Summary.BLEU,
        besides=(Besides("chrf", Summary.CHRF, BLEU_COUNTS),),
    ),
    scores=counts_of,
)
