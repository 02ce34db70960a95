"""Bootstrap intervals of metrics that are no means: the examples are drawn anew, and the metric taken of each draw."""

from __future__ import annotations

import numpy as np

from compress.statistics import CHUNK, RESAMPLES, Floats, Interval, Sides, expanded_percentiles
from models.errors import BadInput
from models.summary import Summary, summarised


def summary_interval(
    summary: Summary,
    statistics: Floats,
    *,
    confidence: float = 0.95,
    sides: Sides = 2,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return a metric and its bootstrap interval, for the (n, k) statistics of its examples.

    Percentiles taken further out, as `bootstrap_mean` does. Raises BadInput without examples.
    """
    return _interval(summary, [statistics], confidence=confidence, sides=sides, resamples=resamples, seed=seed)


def paired_summaries(
    summary: Summary,
    first: Floats,
    second: Floats,
    *,
    confidence: float = 0.95,
    sides: Sides = 1,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the interval of the metric of `second` less that of `first`, both of the same examples, drawn together.

    Raises BadInput without examples, or where their numbers differ.
    """
    if len(first) != len(second):
        raise BadInput(f"Paired scores differ in number: {len(first)} and {len(second)}.")
    return _interval(summary, [second, first], confidence=confidence, sides=sides, resamples=resamples, seed=seed)


def _interval(
    summary: Summary, models: list[Floats], *, confidence: float, sides: Sides, resamples: int, seed: int
) -> Interval:
    """Return the interval of the first model's metric, less that of the second where there is one."""
    size = len(models[0])
    if size == 0:
        raise BadInput("No scores to judge.")

    def difference(weights: Floats) -> Floats:
        values = [summarised(summary, statistics, weights) for statistics in models]
        return values[0] if len(values) == 1 else values[0] - values[1]

    estimate = float(difference(np.ones((1, size)))[0])
    if size == 1:
        return Interval(estimate, estimate, estimate)
    generator = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    step = max(1, CHUNK // size)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn[start : start + count] = difference(
            generator.multinomial(size, np.full(size, 1 / size), size=count).astype(np.float64)
        )
    return expanded_percentiles(estimate, drawn, size=size, confidence=confidence, sides=sides)
