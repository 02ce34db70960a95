"""Intervals and tests behind the gates; numpy and the normal distribution only.

A bound called one-sided at 95 % is wrong on its side in at most 5 % of repetitions. `sides=1` makes both ends of an
interval one-sided bounds at `confidence`; `sides=2` makes the interval as a whole cover with `confidence`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.errors import BadInput

Sides: TypeAlias = Literal[1, 2]
Floats: TypeAlias = NDArray[np.float64]
Values: TypeAlias = Sequence[float] | Floats

RESAMPLES = 10_000
CHUNK = 2_000_000  # numbers drawn at once by the bootstrap: 16 MB of indices and 16 MB of values
FEW_ROUNDS = 6  # below this the resampled means are too coarse in their tails: 6.9 % outside a 95 % bound at 4
_BISECTIONS = 80
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its bounds, low <= estimate <= high."""

    estimate: float
    low: float
    high: float


def normal_quantile(confidence: float, *, sides: Sides = 2) -> float:
    """Return z such that a normal estimate +- z standard errors is a bound at `confidence` (1.645 for 0.95, one side).

    Raises BadInput unless 0.5 < confidence < 1.
    """
    return _NORMAL.inv_cdf(1.0 - _tail(confidence, sides))


def student_quantile(confidence: float, degrees: int, *, sides: Sides = 2) -> float:
    """Return Student's t for whole `degrees` of freedom: the finite series up to 30, an expansion in 1/degrees above.

    Source: Abramowitz and Stegun 1964, 26.7.3, 26.7.4 and 26.7.5; right to 1e-6. Raises BadInput below one degree.
    """
    if degrees < 1:
        raise BadInput(f"Student's t needs at least one degree of freedom, not {degrees}.")
    tail = _tail(confidence, sides)
    if degrees > 30:
        z = _NORMAL.inv_cdf(1.0 - tail)
        terms = (
            z,
            (z**3 + z) / 4,
            (5 * z**5 + 16 * z**3 + 3 * z) / 96,
            (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
            (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
        )
        return math.fsum(term / degrees**power for power, term in enumerate(terms))
    low, high = 0.0, math.pi / 2  # angle whose tangent is t / sqrt(degrees)
    for _ in range(_BISECTIONS):
        angle = (low + high) / 2
        low, high = (angle, high) if _student_within(angle, degrees) < 1.0 - 2.0 * tail else (low, angle)
    return math.sqrt(degrees) * math.tan(low)


def wilson_interval(successes: int, n: int, *, confidence: float = 0.95, sides: Sides = 2) -> Interval:
    """Return the score interval of a proportion. Source: Wilson 1927, JASA 22:209.

    Raises BadInput unless 0 <= successes <= n and n >= 1.
    """
    if n < 1 or not 0 <= successes <= n:
        raise BadInput(f"{successes} successes of {n} is no proportion.")
    z = normal_quantile(confidence, sides=sides)
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == n else min(1.0, middle + half)
    return Interval(share, min(low, share), max(high, share))


def exact_interval(successes: int, n: int, *, confidence: float = 0.95, sides: Sides = 2) -> Interval:
    """Return the interval of a proportion that covers at least at `confidence`, however near to 0 or 1 it lies.

    Source: Clopper and Pearson 1934, Biometrika 26:404. Raises BadInput unless 0 <= successes <= n and n >= 1.
    """
    if n < 1 or not 0 <= successes <= n:
        raise BadInput(f"{successes} successes of {n} is no proportion.")
    tail = _tail(confidence, sides)
    low, high = _least_likely(successes, n, tail), 1.0 - _least_likely(n - successes, n, tail)
    return Interval(successes / n, low, high)


def tango_score(n: int, b: float, c: float, difference: float, *, continuity: float = 0.0) -> float:
    """Return Tango's statistic against the hypothesis p_c - p_b = `difference`: positive where the data lie above it.

    `n` pairs, of which `b` are right first only and `c` right second only; whole numbers, but expected counts may be
    given. `continuity` is taken off the numerator, which moves in steps of one. Source: Tango 1998, Statistics in
    Medicine 17:891, with the nuisance probability at its constrained maximum of likelihood. Infinite where the
    hypothesis allows no variance and the data contradict it. Raises BadInput on counts that are not a paired table.
    """
    _check_pairs(n, b, c)
    if not -1.0 <= difference <= 1.0:
        raise BadInput(f"A difference of two proportions lies in [-1, 1], not at {difference}.")
    excess, spread = _tango_parts(n, b, c, difference)
    excess -= continuity
    if spread == 0.0:
        return 0.0 if excess == 0.0 else math.copysign(math.inf, excess)
    return excess / spread


def tango_interval(
    n: int, b: float, c: float, *, confidence: float = 0.95, sides: Sides = 2, continuity: float = 0.0
) -> Interval:
    """Return Tango's score interval for p_c - p_b of `n` pairs, `b` right first only and `c` right second only.

    Every difference that the score test does not reject; defined for b = c = 0 too, where it is
    +- z^2 / (n + z^2). `continuity` = 0.5 is the half step of a count: with it the test's true size stays below its
    nominal one also where few pairs disagree (exact enumeration in the tests: 4.9 % against 6.0 % without).
    Source: Tango 1998, Statistics in Medicine 17:891. Raises BadInput on counts that are not a paired table.
    """
    _check_pairs(n, b, c)
    z = normal_quantile(confidence, sides=sides)
    low = _tango_low(n, b, c, z, continuity)
    high = -_tango_low(n, c, b, z, continuity)
    return Interval((c - b) / n, low, high)


def mcnemar_p(b: int, c: int) -> float:
    """Return the two-sided p value of the exact McNemar test on the discordant counts: Binomial(b + c, 1/2).

    It tests whether two models differ; a large value is no evidence that they are equal. Source: McNemar 1947,
    Psychometrika 12:153.
    """
    if b < 0 or c < 0:
        raise BadInput(f"Discordant counts {b} and {c} cannot be negative.")
    total, term = 0, 1  # whole numbers: exact at any size
    for k in range(min(b, c) + 1):
        total += term
        term = term * (b + c - k) // (k + 1)
    return min(1.0, 2 * total / (1 << (b + c)))


def half_width(discordance: float, n: int, *, confidence: float = 0.95, sides: Sides = 1) -> float:
    """Return the half width of the interval of a paired difference when `discordance` of `n` pairs disagree."""
    if n < 1 or not 0.0 <= discordance <= 1.0:
        raise BadInput(f"A share of {discordance} of {n} pairs has no interval.")
    return normal_quantile(confidence, sides=sides) * math.sqrt(discordance / n)


def can_show(n: int, discordance: float, margin: float, *, confidence: float = 0.95, continuity: float = 0.5) -> bool:
    """Return whether `n` pairs, `discordance` of which disagree evenly, would show a loss below `margin`."""
    side = n * discordance / 2
    return tango_score(n, side, side, -margin, continuity=continuity) > normal_quantile(confidence, sides=1)


def needed_examples(discordance: float, margin: float, *, confidence: float = 0.95, power: float = 0.8) -> int:
    """Return how many pairs show, with probability `power`, that two equally good models differ by less than `margin`.

    `discordance` is the share of pairs on which they disagree. The normal formula d (z_confidence + z_power)^2 /
    margin^2, and never fewer than the score test itself needs when the pairs disagree evenly.
    """
    if not 0.0 < margin < 1.0 or not 0.0 <= discordance <= 1.0 or not 0.5 <= power < 1.0:
        raise BadInput(f"No sample size for margin {margin}, discordance {discordance}, power {power}.")
    z = normal_quantile(confidence, sides=1)
    low, high = 1, 2
    while not can_show(high, discordance, margin, confidence=confidence):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if can_show(middle, discordance, margin, confidence=confidence) else (middle, high)
    return max(high, math.ceil(discordance * ((z + _NORMAL.inv_cdf(power)) / margin) ** 2))


def percentile(values: Values, percent: float) -> float:
    """Return the `percent`-th percentile (0-100), linear between neighbours. Raises BadInput on none or not finite."""
    if not 0.0 <= percent <= 100.0:
        raise BadInput(f"A percentile lies between 0 and 100, not at {percent}.")
    return float(np.percentile(_finite(values, "values"), percent))


def bootstrap_mean(
    values: Values, *, confidence: float = 0.95, sides: Sides = 2, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the mean and its bootstrap interval; a single value has no width.

    Percentiles of the resampled means, taken further out so that they cover in small samples too: a plain percentile
    interval is as narrow as a normal one with the variance divided by n. Source: Efron 1979, Annals of Statistics 7:1;
    Hesterberg 2015, The American Statistician 69:371, "expanded percentile". Same seed, same interval.
    """
    sample = _finite(values, "values")
    mean = float(sample.mean())
    if sample.size == 1 or np.ptp(sample) == 0.0:
        _tail(confidence, sides)
        return Interval(mean, mean, mean)
    return expanded_percentiles(
        mean, _resampled_means(sample, resamples, seed), size=sample.size, confidence=confidence, sides=sides
    )


def expanded_percentiles(estimate: float, drawn: Floats, *, size: int, confidence: float, sides: Sides) -> Interval:
    """Return the interval of an estimate on `size` examples, two or more, whose value on resamples of them is `drawn`.

    Source: Hesterberg 2015, The American Statistician 69:371, "expanded percentile".
    """
    t = student_quantile(confidence, size - 1, sides=sides)
    tail = 100.0 * _NORMAL.cdf(-t * math.sqrt(size / (size - 1)))
    low, high = np.percentile(drawn, [tail, 100.0 - tail])
    return Interval(estimate, min(float(low), estimate), max(float(high), estimate))


def metric_interval(scores: Values, *, paired_test: Literal["proportions", "bootstrap"]) -> Interval:
    """Return a metric with its two-sided 95 % interval: Wilson's for 0/1 scores, the bootstrap's for others."""
    sample = _finite(scores, "scores")
    if paired_test == "bootstrap":
        return bootstrap_mean(sample)
    if not np.isin(sample, (0.0, 1.0)).all():
        raise BadInput("Scores that are proportions must each be 0 or 1.")
    return wilson_interval(int(sample.sum()), sample.size)


def round_ratios(baseline: Sequence[Sequence[float]], candidate: Sequence[Sequence[float]]) -> Floats:
    """Return (rounds,): median baseline over median candidate time per round, above 1 where the candidate is faster.

    A round holds the passes of both models, such as A B B A: two times each, so that a drift within it cancels. Raises
    BadInput on no rounds, on rounds that do not pair up, or on times that are not positive.
    """
    if not baseline or len(baseline) != len(candidate):
        raise BadInput(
            f"Latency rounds do not pair up: {len(baseline)} of the baseline, {len(candidate)} of the candidate."
        )
    medians = [
        [float(np.median(_finite(times, "times of a round"))) for times in side] for side in (baseline, candidate)
    ]
    if min(map(min, medians)) <= 0.0:
        raise BadInput("A latency must be above 0 ms.")
    return np.asarray(medians[0], dtype=np.float64) / np.asarray(medians[1], dtype=np.float64)


def ratio_interval(
    baseline: Sequence[Sequence[float]],
    candidate: Sequence[Sequence[float]],
    *,
    confidence: float = 0.95,
    sides: Sides = 1,
    seed: int = 0,
) -> Interval:
    """Return the geometric mean of the rounds' speed ratios and its interval, from the mean of their logarithms.

    The bootstrap over rounds from `FEW_ROUNDS` up; Student's interval below, and (0, infinity) for a single round,
    which says nothing about its own noise.
    """
    logs = np.log(round_ratios(baseline, candidate))
    mean = float(logs.mean())
    if logs.size == 1:
        return Interval(math.exp(mean), 0.0, math.inf)
    if logs.size >= FEW_ROUNDS:
        spread = bootstrap_mean(logs, confidence=confidence, sides=sides, seed=seed)
        return Interval(math.exp(spread.estimate), math.exp(spread.low), math.exp(spread.high))
    half = student_quantile(confidence, logs.size - 1, sides=sides) * float(logs.std(ddof=1)) / math.sqrt(logs.size)
    return Interval(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def _tail(confidence: float, sides: Sides) -> float:
    if not 0.5 < confidence < 1.0:
        raise BadInput(f"A confidence lies between 0.5 and 1, not at {confidence}.")
    return (1.0 - confidence) / sides


def _least_likely(successes: int, n: int, tail: float) -> float:
    """Return the proportion under which `successes` or more of `n` have the probability `tail`."""
    if successes == 0:
        return 0.0
    counts = np.arange(successes, n + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])  # of factorials
    ways = logs[n] - logs[counts] - logs[n - counts]
    low, high = 0.0, successes / n
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if middle in (low, high):  # as near as numbers get
            break
        terms = ways + counts * math.log(middle) + (n - counts) * math.log1p(-middle)
        low, high = (middle, high) if float(np.exp(terms).sum()) < tail else (low, middle)
    return low


def _student_within(angle: float, degrees: int) -> float:
    """Return P(|T| <= t) for t = sqrt(degrees) tan(angle)."""
    cosine, total = math.cos(angle), 0.0
    term = cosine if degrees % 2 else 1.0
    for k in range(degrees % 2, degrees - 1, 2):
        total += term
        term *= cosine * cosine * (k + 1) / (k + 2)
    if degrees % 2:
        return 2.0 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total


def _check_pairs(n: int, b: float, c: float) -> None:
    if n < 1 or b < 0 or c < 0 or b + c > n:
        raise BadInput(f"{b} and {c} discordant of {n} is no table of pairs.")


def _tango_parts(n: int, b: float, c: float, difference: float) -> tuple[float, float]:
    """Return the numerator c - b - n difference and its standard deviation under the hypothesis."""
    linear = (2 * n + b - c) * difference - (b + c)
    constant = -b * difference * (1.0 - difference)
    root = math.sqrt(max(linear * linear - 8 * n * constant, 0.0))
    # p_b at its constrained maximum; the second form of the root avoids the difference of two nearly equal numbers.
    nuisance = -2.0 * constant / (linear + root) if linear > 0 else (root - linear) / (4 * n)
    nuisance = min(max(nuisance, 0.0, -difference), (1.0 - difference) / 2)
    return c - b - n * difference, math.sqrt(max(n * (2 * nuisance + difference * (1.0 - difference)), 0.0))


def _tango_low(n: int, b: float, c: float, z: float, continuity: float) -> float:
    """Return the lowest difference in [-1, estimate] that the score test does not reject."""
    rejected, accepted = -1.0, (c - b) / n
    for _ in range(_BISECTIONS):
        middle = (rejected + accepted) / 2
        excess, spread = _tango_parts(n, b, c, middle)
        rejected, accepted = (rejected, middle) if excess - continuity <= z * spread else (middle, accepted)
    return accepted


def _finite(values: Values, name: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise BadInput(f"No {name} to judge.")
    if not np.isfinite(array).all():
        raise BadInput(f"{int((~np.isfinite(array)).sum())} of {array.size} {name} are not finite numbers.")
    return array


def _resampled_means(sample: Floats, resamples: int, seed: int) -> Floats:
    """Return (resamples,) means of samples drawn with replacement, a bounded number of draws at a time."""
    generator = np.random.default_rng(seed)
    means = np.empty(resamples, dtype=np.float64)
    step = max(1, CHUNK // sample.size)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = generator.integers(0, sample.size, size=(count, sample.size))
        means[start : start + count] = sample[drawn].mean(axis=1)
    return means
