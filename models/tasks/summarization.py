"""A short text that says what a long one does."""

from __future__ import annotations

from collections.abc import Sequence

from models.overlap import rouge_scores
from models.summary import Summary
from models.task import Besides, Metric, PairedTest
from models.writing import BehindSource


def longest_first(text: str, right: Sequence[str]) -> tuple[float, float, float]:
    """Return ROUGE-L, ROUGE-1 and ROUGE-2: a mean is that of the first."""
    words, pairs, longest = rouge_scores(text, right)
    return longest, words, pairs


# ROUGE-L of what is written to judge, and ROUGE-1 and ROUGE-2 besides, each against the best of the right texts.
SUMMARIZATION = BehindSource(
    name="summarization",
    metric=Metric(
        "rouge_l",
        higher_is_better=True,
        paired_test=PairedTest.BOOTSTRAP,
        besides=(Besides("rouge_1", Summary.MEAN, 1), Besides("rouge_2", Summary.MEAN, 2)),
    ),
    scores=longest_first,
)
