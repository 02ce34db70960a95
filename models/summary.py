"""How a metric is made of what is known of each example: a mean, an F1 or BLEU of counts, or a correlation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum

import numpy as np
import numpy.typing as npt

from models.average_precision import average_precision, precision_by_image
from models.overlap import BLEU_COUNTS, CHRF_COUNTS, WORDS_ORDER

Floats = npt.NDArray[np.float64]

LEAST_SPREAD = 1e-9  # of ranks, which are halves: less is rounding


class Summary(str, Enum):
    """What a metric says of a data set, and what it needs of an example.

    MEAN: (n, 1) scores, or more columns of which the first has them. F1: (n, 3) counts of right, given and expected
    items, summed over examples (micro-averaged). MACRO_F1: (n, 3 * classes), the three counts of each class; the mean
    of the classes' F1. CLASS_F1: (n, 2) the number of the class given and of the one expected; the same mean. SPEARMAN:
    (n, 2) predicted and expected numbers, of which the ranks count. PEARSON: the numbers themselves.
    AVERAGE_PRECISION: (n, 3 * items), as models.average_precision has them.
    Of sums over examples are made BLEU and CHRF, of the counts of `models.overlap`, and PER_TOKEN and PERPLEXITY,
    (n, 2) costs and tokens: the mean cost of a token, and e to the power of it.
    """

    MEAN = "mean"
    F1 = "f1"
    MACRO_F1 = "macro_f1"
    CLASS_F1 = "class_f1"
    SPEARMAN = "spearman"
    PEARSON = "pearson"
    AVERAGE_PRECISION = "average_precision"
    BLEU = "bleu"
    CHRF = "chrf"
    PER_TOKEN = "per_token"
    PERPLEXITY = "perplexity"


def summarised(summary: Summary, statistics: Floats, weights: Floats) -> Floats:
    """Return (draws,) the metric of each of several weighted data sets.

    `statistics` (n, k) is what is known of each example, `weights` (draws, n) how often a data set holds it.
    """
    if summary is Summary.MEAN:
        means: Floats = (weights @ statistics[:, 0]) / weights.sum(axis=1)
        return means
    if summary in _OF_SUMS:
        return _OF_SUMS[summary](weights @ statistics)
    if summary is Summary.SPEARMAN:
        given, expected = (_ranks(column, weights) for column in statistics.T)
        return _correlation(given, expected, weights)
    if summary is Summary.PEARSON:
        one, two = (np.broadcast_to(column, weights.shape) for column in statistics.T)
        return _correlation(one, two, weights)
    if summary is Summary.CLASS_F1:
        right, shown = _of_classes(statistics, weights)
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
        _, (shown,) = _of_classes(statistics, np.ones((1, len(statistics))))
        given, expected = statistics.astype(np.int64).T
        parts: Floats = np.where(given == expected, 2 * len(given) / shown[expected] / (shown > 0).sum(), 0.0)
        return parts
    if summary is Summary.AVERAGE_PRECISION:
        return precision_by_image(statistics)
    if summary in _OF_SUMS:
        return _pseudo_values(_OF_SUMS[summary], statistics)
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
    """Return, of every class, how often each draw has it right, and how often given or expected, (draws, classes)."""
    known = (statistics >= 0).all(axis=1)  # an unlabelled example has no class
    (given, expected), weights = statistics[known].astype(np.int64).T, weights[:, known]
    draws, size = len(weights), int(statistics.max(initial=0)) + 1
    first = size * np.arange(draws)[:, None]  # each draw counts classes of its own

    def counted(classes: npt.NDArray[np.int64], each: Floats) -> Floats:
        counts = np.bincount((first + classes).ravel(), weights=each.ravel(), minlength=draws * size)
        return counts.astype(np.float64).reshape(draws, size)

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


def _bleu(sums: Floats) -> Floats:
    """Return (draws,) BLEU from 0 to 1 of summed counts, smoothed as sacreBLEU does where no n-gram is right."""
    right, given = sums[:, :WORDS_ORDER], sums[:, WORDS_ORDER : 2 * WORDS_ORDER]
    ours, wanted = sums[:, BLEU_COUNTS - 2], sums[:, BLEU_COUNTS - 1]
    halved = 2.0 ** np.cumsum(right == 0, axis=1)  # how often an order had none right so far
    told = (right.sum(axis=1) > 0) & (given > 0).all(axis=1)
    shares = np.where(right > 0, right, 1 / halved) / np.where(given > 0, given, 1.0)
    brevity = np.exp(np.minimum(0.0, 1 - wanted / np.where(ours > 0, ours, 1.0)))
    found: Floats = np.where(told, brevity * np.exp(np.log(shares).mean(axis=1)), 0.0)
    return found


def _chrf(sums: Floats) -> Floats:
    """Return (draws,) chrF from 0 to 1 of summed counts, of the orders that are both given and expected."""
    given, wanted, right = np.moveaxis(sums[:, :CHRF_COUNTS].reshape(len(sums), -1, 3), 2, 0)
    known = (given > 0) & (wanted > 0)
    orders = np.maximum(known.sum(axis=1), 1)
    precision, recall = (
        np.divide(right, each, out=np.zeros_like(right), where=known).sum(axis=1) / orders for each in (given, wanted)
    )
    below = 4 * precision + recall
    found: Floats = np.divide(5 * precision * recall, below, out=np.zeros(len(sums)), where=below > 0)
    return found


def _per_token(sums: Floats) -> Floats:
    mean: Floats = np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] > 0)
    return mean


def _perplexity(sums: Floats) -> Floats:
    power: Floats = np.exp(_per_token(sums))
    return power


_OF_SUMS: Mapping[Summary, Callable[[Floats], Floats]] = {
    Summary.BLEU: _bleu,
    Summary.CHRF: _chrf,
    Summary.PER_TOKEN: _per_token,
    Summary.PERPLEXITY: _perplexity,
}


def _pseudo_values(of_sums: Callable[[Floats], Floats], statistics: Floats) -> Floats:
    """Return (n,) what the metric loses without each example, times their number and around the metric: jackknife
    pseudo-values (Tukey 1958), moved so that their mean is the metric itself.
    """
    total = statistics.sum(axis=0, keepdims=True)
    metric, count = of_sums(total)[0], len(statistics)
    if count == 1:
        return np.array([metric])
    without = of_sums(total - statistics)
    values: Floats = metric - (count - 1) * (without - without.mean())
    return values
