"""How a metric is made of what is known of each example: a mean, an F1, or a correlation."""

from __future__ import annotations

from enum import Enum

import numpy as np
import numpy.typing as npt

from models.average_precision import average_precision, precision_by_image

Floats = npt.NDArray[np.float64]

LEAST_SPREAD = 1e-9  # of ranks, which are halves: less is rounding


class Summary(str, Enum):
    """What a metric says of a data set, and what it needs of an example.

    MEAN: (n, 1) scores, or more columns of which the first has them. F1: (n, 3) counts of right, given and expected
    items, summed over examples (micro-averaged). MACRO_F1: (n, 3 * classes), the three counts of each class; the mean
    of the classes' F1. CLASS_F1: (n, 2) the number of the class given and of the one expected; the same mean. SPEARMAN:
    (n, 2) predicted and expected numbers, of which the ranks count. PEARSON: the numbers themselves.
    AVERAGE_PRECISION: (n, 3 * items), as models.average_precision has them.
    """

    MEAN = "mean"
    F1 = "f1"
    MACRO_F1 = "macro_f1"
    CLASS_F1 = "class_f1"
    SPEARMAN = "spearman"
    PEARSON = "pearson"
    AVERAGE_PRECISION = "average_precision"


def summarised(summary: Summary, statistics: Floats, weights: Floats) -> Floats:
    """Return (draws,) the metric of each of several weighted data sets.

    `statistics` (n, k) is what is known of each example, `weights` (draws, n) how often a data set holds it.
    """
    if summary is Summary.MEAN:
        means: Floats = (weights @ statistics[:, 0]) / weights.sum(axis=1)
        return means
    if summary is Summary.SPEARMAN:
        given, expected = (_ranks(column, weights) for column in statistics.T)
        return _correlation(given, expected, weights)
    if summary is Summary.PEARSON:
        one, two = (np.broadcast_to(column, weights.shape) for column in statistics.T)
        return _correlation(one, two, weights)
    if summary is Summary.CLASS_F1:
        right, shown = (np.stack(part) for part in zip(*(_of_classes(statistics, row) for row in weights), strict=True))
        return _mean_over_present(2 * right, shown)
    if summary is Summary.AVERAGE_PRECISION:
        return average_precision(statistics, weights)
    counts = (weights @ statistics).reshape(len(weights), -1, 3)  # (draws, classes, 3)
    return _mean_over_present(2 * counts[..., 0], counts[..., 1] + counts[..., 2])


def contributions(summary: Summary, statistics: Floats) -> Floats:
    """Return (n,) what each example adds to the metric: their mean is the metric."""
    if summary is Summary.MEAN:
        return statistics[:, 0]
    if summary is Summary.SPEARMAN:
        once = np.ones((1, len(statistics)))
        first, second = (_standard(_ranks(column, once)[0]) for column in statistics.T)
        return first * second
    if summary is Summary.PEARSON:
        first, second = (_standard(column) for column in statistics.T)
        return first * second
    if summary is Summary.CLASS_F1:
        _, shown = _of_classes(statistics, np.ones(len(statistics)))
        given, expected = statistics.astype(np.int64).T
        parts: Floats = np.where(given == expected, 2 * len(given) / shown[expected] / (shown > 0).sum(), 0.0)
        return parts
    if summary is Summary.AVERAGE_PRECISION:
        return precision_by_image(statistics)
    counts = statistics.reshape(len(statistics), -1, 3)
    shown = counts[..., 1].mean(axis=0) + counts[..., 2].mean(axis=0)  # (classes,)
    present = shown > 0
    if not present.any():
        return np.zeros(len(statistics))
    shares: Floats = (2 * counts[:, present, 0] / shown[present]).mean(axis=1)
    return shares


def _ranks(values: Floats, weights: Floats) -> Floats:
    """Return (draws, n) the rank of every value in each weighted data set; equal values share the mean of theirs."""
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    sizes = np.add.reduceat(weights[:, order], starts, axis=1)  # (draws, distinct values)
    middle = np.cumsum(sizes, axis=1) - (sizes - 1) / 2
    group = np.empty(len(values), dtype=np.int64)
    group[order] = np.repeat(np.arange(len(starts)), np.diff([*starts, len(values)]))
    ranks: Floats = middle[:, group]
    return ranks


def _correlation(first: Floats, second: Floats, weights: Floats) -> Floats:
    """Return (draws,) Pearson's correlation of weighted rows; 0 where one of them is constant."""
    share = weights / weights.sum(axis=1, keepdims=True)
    one, two = (ranks - (share * ranks).sum(axis=1, keepdims=True) for ranks in (first, second))
    spread = np.sqrt((share * one**2).sum(axis=1) * (share * two**2).sum(axis=1))
    together = (share * one * two).sum(axis=1)
    found: Floats = np.divide(together, spread, out=np.zeros(len(weights)), where=spread > LEAST_SPREAD)
    return found


def _of_classes(statistics: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return, of every class, how often it is right, and how often it is given or expected, each (classes,)."""
    known = (statistics >= 0).all(axis=1)  # an unlabelled example has no class
    (given, expected), weights = statistics[known].astype(np.int64).T, weights[known]
    size = int(statistics.max(initial=0)) + 1

    def counted(classes: npt.NDArray[np.int64], each: Floats) -> Floats:
        counts: Floats = np.bincount(classes, weights=each, minlength=size).astype(np.float64)
        return counts

    return counted(expected, weights * (given == expected)), counted(given, weights) + counted(expected, weights)


def _standard(values: Floats) -> Floats:
    centred = values - values.mean()
    spread = float(np.sqrt((centred**2).mean()))
    standard: Floats = centred / spread if spread else centred
    return standard


def _mean_over_present(twice_right: Floats, shown: Floats) -> Floats:
    """Return (draws,) the mean F1 of the classes that are given or expected at all; 0 where none is."""
    present = shown > 0
    each = np.divide(twice_right, shown, out=np.zeros_like(shown), where=present)
    classes = present.sum(axis=1)
    mean: Floats = np.divide(each.sum(axis=1), classes, out=np.zeros(len(shown)), where=classes > 0)
    return mean
