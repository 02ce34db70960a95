"""Bootstrap intervals of metrics: how often they cover, and that a pair is drawn together."""

from __future__ import annotations

import numpy as np
import pytest

from compress.bootstrap import paired_summaries, summary_interval
from compress.statistics import bootstrap_mean
from models.errors import BadInput
from models.summary import Summary


def pairs(rows: int, noise: float, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    expected = random.normal(size=rows)
    return np.stack([expected + noise * random.normal(size=rows), expected], axis=1)


def test_the_mean_is_as_it_was() -> None:
    scores = np.random.default_rng(0).random(200)
    ours = summary_interval(Summary.MEAN, scores[:, None])
    theirs = bootstrap_mean(scores)
    assert ours.estimate == pytest.approx(theirs.estimate)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.003)


def test_a_one_sided_bound_is_wrong_about_as_often_as_it_says() -> None:
    # Two models of equal noise are equally good: a lower bound above 0 is wrong, and may be so in 5 % of the cases.
    wrong, draws = 0, 400
    for seed in range(draws):
        random = np.random.default_rng(seed)
        expected = random.normal(size=80)
        first, second = (np.stack([expected + random.normal(size=80), expected], axis=1) for _ in range(2))
        wrong += paired_summaries(Summary.SPEARMAN, first, second, resamples=400, seed=seed).low > 0
    assert 0.01 < wrong / draws < 0.09


def test_a_pair_is_drawn_together() -> None:
    first = pairs(150, 0.8, seed=1)
    second = first + [0.01, 0.0] * np.random.default_rng(2).normal(size=(150, 1))  # nearly the same answers
    together = paired_summaries(Summary.SPEARMAN, first, second)
    alone = summary_interval(Summary.SPEARMAN, first)
    assert together.high - together.low < (alone.high - alone.low) / 10
    same = paired_summaries(Summary.SPEARMAN, first, first)
    assert (same.low, same.estimate, same.high) == (0, 0, 0)


def test_a_pair_sees_only_differences() -> None:
    generator = np.random.default_rng(9)
    easy = generator.uniform(0, 100, size=500)  # examples differ far more than the models
    moved = easy - 0.5 + generator.normal(0, 0.1, size=500)
    interval = paired_summaries(Summary.MEAN, easy[:, None], moved[:, None])
    assert interval.estimate == pytest.approx(-0.5, abs=0.02)
    assert -0.52 < interval.low < interval.estimate


def test_the_same_seed_gives_the_same_interval() -> None:
    statistics = pairs(60, 1.0, seed=3)
    assert summary_interval(Summary.SPEARMAN, statistics, seed=5) == summary_interval(
        Summary.SPEARMAN, statistics, seed=5
    )
    assert summary_interval(Summary.SPEARMAN, statistics, seed=5) != summary_interval(
        Summary.SPEARMAN, statistics, seed=6
    )


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(BadInput, match="No scores"):
        summary_interval(Summary.F1, np.zeros((0, 3)))
    with pytest.raises(BadInput, match="differ in number: 2 and 3"):
        paired_summaries(Summary.F1, np.zeros((2, 3)), np.zeros((3, 3)))
