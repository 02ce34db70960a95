"""Summaries against scipy and against counting by hand, plain and weighted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from models.summary import Summary, contributions, summarised

seeds = st.integers(0, 10_000)


def drawn(summary: Summary, seed: int, rows: int = 40) -> np.ndarray:
    random = np.random.default_rng(seed)
    if summary is Summary.MEAN:
        return random.random((rows, 1 + seed % 2))
    if summary is Summary.CLASS_F1:
        expected = random.integers(0, 4, rows)
        return np.stack([np.where(random.random(rows) < 0.5, expected, 5), expected], axis=1).astype(float)
    if summary in (Summary.SPEARMAN, Summary.PEARSON):
        expected = random.integers(0, 6, rows)  # with ties
        return np.stack([expected + random.normal(0, 2, rows).round(1), expected], axis=1).astype(float)
    if summary is Summary.AVERAGE_PRECISION:
        return drawn_boxes(random, rows)
    classes = 1 if summary is Summary.F1 else 4
    given_, expected = random.random((rows, classes)) < 0.4, random.random((rows, classes)) < 0.4
    return np.stack([given_ & expected, given_, expected], axis=2).reshape(rows, -1).astype(float)


def drawn_boxes(random: np.random.Generator, rows: int, *, tokens: int = 3, kinds: int = 3) -> np.ndarray:
    """Return what images might know of their boxes: kinds, scores that other images have too, and levels at which they
    are right.
    """
    items = np.zeros((rows, tokens + kinds, 3))
    items[:, :tokens, 0] = random.integers(0, kinds, (rows, tokens))
    items[:, :tokens, 1] = (random.integers(0, 20, (rows, tokens)) * tokens + np.arange(tokens)) / 60
    # What is right at a level is right at those below it.
    items[:, :tokens, 2] = 2 ** random.integers(0, 11, (rows, tokens)) - 1
    items[:, tokens:, 0], items[:, tokens:, 1] = np.arange(kinds), -1
    for kind in range(kinds - 1):  # the last kind is expected nowhere
        found = ((items[:, :tokens, 0] == kind) & (items[:, :tokens, 2] > 0)).sum(axis=1)
        items[:, tokens + kind, 2] = found + random.integers(0, 2, rows)
    items[:, :tokens, 2] *= items[:, :tokens, 0] < kinds - 1
    return items.reshape(rows, -1)


def precision_by_hand(statistics: np.ndarray) -> float:
    """Return COCO's average precision, box by box and recall by recall."""
    items = statistics.reshape(len(statistics), -1, 3)
    precisions = []
    for kind in np.unique(items[..., 0]):
        own = items[items[..., 0] == kind]
        wanted = own[own[:, 1] < 0][:, 2].sum()
        boxes = sorted(own[own[:, 1] >= 0].tolist(), key=lambda box: -box[1])
        for level in range(10 if wanted else 0):
            points, hits = [], 0
            for number, (_, _, right) in enumerate(boxes, start=1):
                hits += int(right) >> level & 1
                points.append((hits, hits / number))
            reached = [
                max((precision for found, precision in points if 100 * found >= recall * wanted and found), default=0.0)
                for recall in range(101)
            ]
            precisions.append(float(np.mean(reached)))
    return float(np.mean(precisions)) if precisions else 0.0


def by_hand(summary: Summary, statistics: np.ndarray) -> float:
    if summary is Summary.MEAN:
        return float(statistics[:, 0].mean())
    if summary is Summary.SPEARMAN:
        return float(spearmanr(statistics[:, 0], statistics[:, 1]).statistic)
    if summary is Summary.PEARSON:
        return float(pearsonr(statistics[:, 0], statistics[:, 1]).statistic)
    if summary is Summary.CLASS_F1:
        classes = np.unique(statistics)
        given_, expected = statistics[:, :1] == classes, statistics[:, 1:] == classes
        return by_hand(
            Summary.MACRO_F1, np.stack([given_ & expected, given_, expected], axis=2).reshape(len(given_), -1)
        )
    if summary is Summary.AVERAGE_PRECISION:
        return precision_by_hand(statistics)
    scores = []
    for right, said, wanted in statistics.sum(axis=0).reshape(-1, 3):
        if said + wanted:
            precision, recall = (right / said if said else 0.0), (right / wanted if wanted else 0.0)
            scores.append(2 * precision * recall / (precision + recall) if right else 0.0)
    return float(np.mean(scores))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(Summary), seeds)
def test_a_weighted_summary_is_that_of_the_repeated_rows(summary: Summary, seed: int) -> None:
    statistics = drawn(summary, seed)
    random = np.random.default_rng(seed + 1)
    weights = np.stack([np.ones(40), random.integers(0, 3, 40), random.integers(0, 5, 40)]).astype(float)
    found = summarised(summary, statistics, weights)
    for value, times in zip(found, weights.astype(int), strict=True):
        assert value == pytest.approx(by_hand(summary, np.repeat(statistics, times, axis=0)), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(Summary), seeds)
def test_contributions_average_to_the_summary(summary: Summary, seed: int) -> None:
    statistics = drawn(summary, seed)
    assert contributions(summary, statistics).mean() == pytest.approx(by_hand(summary, statistics), abs=1e-9)


def test_what_has_no_value_is_zero() -> None:
    constant = np.stack([np.ones(5), np.arange(5.0)], axis=1)
    assert summarised(Summary.SPEARMAN, constant, np.ones((1, 5))).tolist() == [0.0]
    assert contributions(Summary.SPEARMAN, constant).tolist() == [0.0] * 5
    assert summarised(Summary.PEARSON, constant, np.ones((1, 5))).tolist() == [0.0]
    assert contributions(Summary.PEARSON, constant).tolist() == [0.0] * 5
    apart = np.array([[0.0, 1.0], [2.0, 1.0]])
    assert summarised(Summary.CLASS_F1, apart, np.ones((1, 2))).tolist() == [0.0]
    nothing = np.zeros((5, 6))
    assert summarised(Summary.MACRO_F1, nothing, np.ones((1, 5))).tolist() == [0.0]
    assert contributions(Summary.MACRO_F1, nothing).tolist() == [0.0] * 5
    assert summarised(Summary.AVERAGE_PRECISION, nothing, np.ones((1, 5))).tolist() == [0.0]
    assert contributions(Summary.AVERAGE_PRECISION, nothing).tolist() == [0.0] * 5


def test_precision_of_boxes_that_were_counted_by_hand() -> None:
    """Two images, one kind: a sure right box, a wrong one, and a right one at half of the levels; one is not found."""
    images = np.array(
        [
            [[0, 0.9, 1023], [0, 0.3, 31], [0, -1, 2]],
            [[0, 0.6, 0], [1, 0.8, 0], [0, -1, 1]],
        ]
    ).reshape(2, -1)
    # Recalls up to 33 % are reached at once; those up to 67 % by two of three boxes, at five levels of ten.
    expected = (34 * 1.0 + 33 * (2 / 3) / 2) / 101
    assert summarised(Summary.AVERAGE_PRECISION, images, np.ones((1, 2)))[0] == pytest.approx(expected)
    assert contributions(Summary.AVERAGE_PRECISION, images).tolist() == pytest.approx([2 * expected, 0.0])
    # Of the first image alone, the second one twice, or none at all.
    draws = np.array([[1, 0], [1, 2], [0, 1], [0, 0]])
    twice = (26 * 1.0 + 25 * (2 / 4) / 2) / 101
    found = summarised(Summary.AVERAGE_PRECISION, images, draws.astype(float))
    assert found.tolist() == pytest.approx([(51 + 50 / 2) / 101, twice, 0.0, 0.0])
