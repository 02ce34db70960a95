"""Intervals against published values, independent oracles, and simulation."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from compress import statistics
from compress.statistics import (
    Sides,
    bootstrap_mean,
    can_show,
    exact_interval,
    half_width,
    mcnemar_p,
    metric_interval,
    needed_examples,
    normal_quantile,
    percentile,
    ratio_interval,
    round_ratios,
    student_quantile,
    tango_interval,
    tango_score,
    wilson_interval,
)
from models.errors import BadInput


@st.composite
def tables(draw: st.DrawFn, largest: int = 400) -> tuple[int, int, int]:
    n = draw(st.integers(1, largest))
    b = draw(st.integers(0, n))
    return n, b, draw(st.integers(0, n - b))


def score_by_likelihood(n: int, b: int, c: int, difference: float) -> float:
    """Tango's statistic with the nuisance probability found by maximising the likelihood numerically."""

    def unlikely(p_b: float) -> float:
        total = 0.0
        for count, chance in ((b, p_b), (c, p_b + difference), (n - b - c, 1 - 2 * p_b - difference)):
            if count:
                total -= count * math.log(max(chance, 1e-300))
        return total

    low, high = max(0.0, -difference), (1 - difference) / 2
    p_b = optimize.minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (c - b - n * difference) / math.sqrt(n * (2 * p_b + difference * (1 - difference)))


# n, b, c, sides, low, high
PUBLISHED = [
    (32, 3, 9, 2, -0.027, 0.390),  # Tango 1998, section 6.2: sleeping difficulties
    (21, 7, 1, 2, -0.517, -0.026),  # Fagerland et al. 2014: airway hyper-responsiveness
    (618, 25, 28, 1, -0.0148, 0.0247),  # R, PropCIs::scoreci.mp(25, 28, 618, 0.90)
]


@pytest.mark.parametrize(("n", "b", "c", "sides", "low", "high"), PUBLISHED)
def test_tango_equals_published_intervals(n: int, b: int, c: int, sides: Sides, low: float, high: float) -> None:
    interval = tango_interval(n, b, c, sides=sides)
    assert interval.low == pytest.approx(low, abs=6e-4 if sides == 2 else 6e-5)
    assert interval.high == pytest.approx(high, abs=6e-4 if sides == 2 else 6e-5)


def test_tango_equals_the_contact_lens_trial() -> None:
    """Tango 1998, section 6.1: 44 pairs, one discordant, margin 0.1."""
    assert tango_score(44, 1, 0, -0.1) == pytest.approx(1.709, abs=5e-4)
    assert tango_interval(44, 1, 0, sides=1).low == pytest.approx(-0.096, abs=5e-4)


@pytest.mark.parametrize(("n", "b", "c"), [(44, 1, 0), (50, 12, 2), (100, 5, 5), (872, 31, 20), (10, 2, 6), (30, 0, 3)])
@pytest.mark.parametrize("difference", [-0.6, -0.2, -0.05, -0.01, 0.0, 0.02, 0.3])
def test_tango_score_equals_the_numerical_maximum_of_likelihood(n: int, b: int, c: int, difference: float) -> None:
    assert tango_score(n, b, c, difference) == pytest.approx(
        score_by_likelihood(n, b, c, difference), rel=1e-5, abs=1e-5
    )


@pytest.mark.parametrize(("n", "b", "c"), [(44, 1, 0), (50, 12, 2), (872, 31, 20), (10, 2, 6), (9, 3, 3), (30, 0, 3)])
def test_tango_interval_is_what_the_score_test_accepts(n: int, b: int, c: int) -> None:
    interval = tango_interval(n, b, c)
    z = normal_quantile(0.95)
    for difference in np.linspace(-0.999, 0.999, 801):
        accepted = abs(score_by_likelihood(n, b, c, float(difference))) <= z
        if min(abs(difference - interval.low), abs(difference - interval.high)) > 1e-4:
            assert accepted == (interval.low <= difference <= interval.high), difference


@pytest.mark.parametrize("n", [1, 2, 44, 872, 100_000])
def test_tango_without_discordant_pairs(n: int) -> None:
    z = normal_quantile(0.95)
    interval = tango_interval(n, 0, 0)
    assert interval.estimate == 0.0
    assert interval.high == pytest.approx(z * z / (n + z * z), rel=1e-9)
    assert interval.low == -interval.high


@given(tables(), st.sampled_from([0.8, 0.9, 0.95, 0.99]), st.sampled_from([0.0, 0.5]))
def test_tango_contains_its_estimate_inside_its_range(
    table: tuple[int, int, int], confidence: float, continuity: float
) -> None:
    interval = tango_interval(*table, confidence=confidence, continuity=continuity)
    assert -1.0 <= interval.low <= interval.estimate <= interval.high <= 1.0
    assert all(map(math.isfinite, (interval.low, interval.high)))


@given(tables())
def test_tango_mirrors_when_the_models_swap(table: tuple[int, int, int]) -> None:
    n, b, c = table
    one, other = tango_interval(n, b, c), tango_interval(n, c, b)
    assert (one.low, one.high) == (-other.high, -other.low)


@given(tables())
def test_tango_grows_with_confidence_and_with_continuity(table: tuple[int, int, int]) -> None:
    narrow, wide = (tango_interval(*table, confidence=confidence) for confidence in (0.9, 0.99))
    assert wide.low <= narrow.low + 1e-12
    assert narrow.high <= wide.high + 1e-12
    assert tango_interval(*table, continuity=0.5).low <= tango_interval(*table).low + 1e-12
    assert tango_interval(*table, sides=1).low >= tango_interval(*table, sides=2).low - 1e-12


@given(tables(), st.floats(-0.99, 0.99))
def test_tango_bound_and_score_test_agree(table: tuple[int, int, int], difference: float) -> None:
    low = tango_interval(*table, sides=1, continuity=0.5).low
    score = tango_score(*table, difference, continuity=0.5)
    z = normal_quantile(0.95, sides=1)
    if abs(score - z) > 1e-6:
        assert (score > z) == (difference < low)


@given(tables())
def test_tango_low_falls_with_every_further_loss(table: tuple[int, int, int]) -> None:
    n, b, c = table
    if b + c < n:
        assert tango_interval(n, b + 1, c).low <= tango_interval(n, b, c).low + 1e-12
        assert tango_interval(n, b, c + 1).low >= tango_interval(n, b, c).low - 1e-12


@pytest.mark.parametrize("table", [(0, 0, 0), (3, 2, 2), (3, -1, 0)])
def test_tango_refuses_what_is_no_table(table: tuple[int, int, int]) -> None:
    with pytest.raises(BadInput, match="no table of pairs"):
        tango_interval(*table)


@cache
def _low(n: int, b: int, c: int) -> float:
    return tango_interval(n, b, c, sides=1, continuity=0.5).low


@pytest.mark.parametrize(
    ("n", "margin", "discordance"),
    [(100, 0.01, 0.05), (300, 0.015, 0.015), (300, 0.02, 0.02), (872, 0.01, 0.05), (3000, 0.01, 0.01)],
)
def test_false_accepts_at_the_margin_are_at_most_five_percent(n: int, margin: float, discordance: float) -> None:
    """Twenty thousand validation sets whose true loss is exactly the margin. The bound alone would reach 6 % here."""
    draws = 20_000
    chances = [(discordance + margin) / 2, (discordance - margin) / 2, 1 - discordance]
    counts = np.random.default_rng(11).multinomial(n, chances, size=draws)
    accepted = sum(_low(n, int(b), int(c)) > -margin for b, c, _ in counts) / draws
    assert accepted <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)


@pytest.mark.parametrize("n", [50, 200, 300, 872])
@pytest.mark.parametrize("margin", [0.01, 0.02, 0.05])
@pytest.mark.parametrize("factor", [1.0, 1.1, 2.0])
def test_false_accepts_by_enumeration_never_exceed_five_percent(n: int, margin: float, factor: float) -> None:
    """No luck involved: the probabilities of all tables that would pass, summed."""
    p_b, p_c = margin * (factor + 1) / 2, margin * (factor - 1) / 2
    z, total = normal_quantile(0.95, sides=1), 0.0
    for b in range(int(stats.binom.ppf(1 - 1e-9, n, p_b)) + 1):
        for c in range(int(stats.binom.ppf(1 - 1e-9, n, p_c)) + 1):
            if b + c <= n and tango_score(n, b, c, -margin, continuity=0.5) > z:
                total += stats.multinomial.pmf([b, c, n - b - c], n, [p_b, p_c, 1 - p_b - p_c])
    assert total <= 0.05


def test_an_equal_model_passes_when_there_are_enough_examples() -> None:
    """The power promised by needed_examples: 80 % of equally good models pass."""
    n = needed_examples(0.05, 0.01)
    counts = np.random.default_rng(3).multinomial(n, [0.025, 0.025, 0.95], size=4000)
    passed = sum(_low(n, int(b), int(c)) > -0.01 for b, c, _ in counts) / 4000
    assert passed == pytest.approx(0.8, abs=0.03)


@given(st.integers(1, 500), st.data(), st.sampled_from([0.9, 0.95, 0.99]))
def test_wilson_equals_scipy(n: int, data: st.DataObject, confidence: float) -> None:
    successes = data.draw(st.integers(0, n))
    ours = wilson_interval(successes, n, confidence=confidence)
    oracle = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((oracle.low, oracle.high), abs=1e-9)
    assert 0.0 <= ours.low <= ours.estimate <= ours.high <= 1.0


@given(st.integers(1, 3000), st.data(), st.sampled_from([0.9, 0.95, 0.99]))
def test_exact_equals_scipy(n: int, data: st.DataObject, confidence: float) -> None:
    successes = data.draw(st.integers(0, n))
    ours = exact_interval(successes, n, confidence=confidence)
    oracle = stats.binomtest(successes, n).proportion_ci(confidence, method="exact")
    assert (ours.low, ours.high) == pytest.approx((oracle.low, oracle.high), abs=1e-9)
    one = exact_interval(successes, n, confidence=confidence, sides=1)
    assert one.low == pytest.approx(
        stats.binomtest(successes, n, alternative="greater").proportion_ci(confidence, method="exact").low, abs=1e-9
    )


def test_exact_refuses_more_successes_than_examples() -> None:
    with pytest.raises(BadInput):
        exact_interval(3, 2)


def test_wilson_refuses_more_successes_than_examples() -> None:
    with pytest.raises(BadInput, match="3 successes of 2"):
        wilson_interval(3, 2)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_equals_scipy(b: int, c: int) -> None:
    expected = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar_p(b, c) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_is_exact_far_beyond_floats() -> None:
    assert mcnemar_p(3000, 3000) == 1.0
    assert 0.0 < mcnemar_p(2000, 2400) < 1e-8


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 10, 29, 30, 31, 60, 999])
@pytest.mark.parametrize("confidence", [0.55, 0.9, 0.95, 0.99])
def test_student_equals_scipy(degrees: int, confidence: float) -> None:
    assert student_quantile(confidence, degrees, sides=1) == pytest.approx(stats.t.ppf(confidence, degrees), rel=2e-6)
    two_sided = stats.t.ppf((1 + confidence) / 2, degrees)
    assert student_quantile(confidence, degrees) == pytest.approx(two_sided, rel=2e-6)


@pytest.mark.parametrize("confidence", [0.5, 1.0, -0.95, 95.0])
def test_a_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(BadInput, match="confidence lies between"):
        normal_quantile(confidence)
    with pytest.raises(BadInput, match="confidence lies between"):
        bootstrap_mean([1.0, 1.0], confidence=confidence)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=60), st.integers(0, 5))
def test_bootstrap_contains_its_mean_and_repeats(values: list[float], seed: int) -> None:
    interval = bootstrap_mean(values, resamples=400, seed=seed)
    assert interval.low <= interval.estimate <= interval.high
    assert interval.estimate == pytest.approx(np.mean(values), abs=1e-9)
    assert interval == bootstrap_mean(values, resamples=400, seed=seed)
    assert interval.low >= min(values) - 1e-9
    assert interval.high <= max(values) + 1e-9


def test_bootstrap_equals_the_normal_interval_on_many_values() -> None:
    values = np.random.default_rng(5).normal(3.0, 2.0, size=4000)
    interval = bootstrap_mean(values)
    error = values.std(ddof=1) / math.sqrt(4000)
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_bootstrap_takes_expanded_percentiles() -> None:
    """Hesterberg's percentiles with scipy's quantiles, over draws made here."""
    values = np.random.default_rng(5).exponential(size=8)
    means = np.random.default_rng(4).choice(values, size=(400_000, 8)).mean(axis=1)
    tail = stats.norm.cdf(-math.sqrt(8 / 7) * stats.t.ppf(0.95, 7))
    interval = bootstrap_mean(values, sides=1, resamples=200_000)
    assert interval.low == pytest.approx(np.quantile(means, tail), abs=0.006)
    assert interval.high == pytest.approx(np.quantile(means, 1 - tail), abs=0.012)


def test_few_rounds_take_students_interval() -> None:
    baseline, candidate = [[10.0], [12.0], [11.0]], [[5.0], [5.0], [5.0]]
    logs = np.log([2.0, 2.4, 2.2])
    low, high = stats.t.interval(0.90, 2, loc=logs.mean(), scale=stats.sem(logs))
    interval = ratio_interval(baseline, candidate)
    assert (interval.low, interval.high) == pytest.approx((math.exp(low), math.exp(high)), rel=1e-9)


def test_bootstrap_seed_matters() -> None:
    values = np.random.default_rng(5).normal(size=50)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_bootstrap_draws_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(5).normal(size=50)
    whole = bootstrap_mean(values, resamples=300)
    monkeypatch.setattr(statistics, "CHUNK", 500)
    assert bootstrap_mean(values, resamples=300) == whole


@pytest.mark.parametrize("n", [6, 10, 20])
def test_bootstrap_bound_covers_in_small_samples(n: int) -> None:
    """Plain percentiles of 6 values would be outside in 9 % of the draws."""
    generator, draws = np.random.default_rng(7), 1500
    missed = sum(bootstrap_mean(generator.normal(size=n), sides=1, resamples=600, seed=i).low > 0 for i in range(draws))
    assert missed / draws <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)
    assert missed / draws >= 0.025


def test_metric_interval_picks_the_interval_of_the_metric() -> None:
    assert metric_interval([1, 1, 0, 1], paired_test="proportions") == wilson_interval(3, 4)
    assert metric_interval([0.2, 0.4, 0.9], paired_test="bootstrap") == bootstrap_mean([0.2, 0.4, 0.9])
    with pytest.raises(BadInput, match="0 or 1"):
        metric_interval([1, 0.5], paired_test="proportions")


def test_needed_examples_follow_the_formula() -> None:
    """d (1.645 + 0.842)^2 / margin^2: 3092 for 5 % discordance and one point."""
    assert needed_examples(0.05, 0.01) == pytest.approx(3092, abs=2)
    assert needed_examples(0.08, 0.01) == pytest.approx(4947, abs=2)
    assert needed_examples(0.02, 0.005) == pytest.approx(4947, abs=2)


@given(st.floats(0.0, 0.3), st.floats(0.003, 0.2))
def test_needed_examples_are_enough(discordance: float, margin: float) -> None:
    n = needed_examples(discordance, margin)
    assert can_show(n, discordance, margin)
    assert not can_show(max(1, n // 8), discordance, margin)


@pytest.mark.parametrize("margin", [0.0, -0.01, 1.0])
def test_needed_examples_refuse_a_margin_that_none_could_show(margin: float) -> None:
    with pytest.raises(BadInput, match="No sample size"):
        needed_examples(0.05, margin)


def test_half_width_of_sst2_dev() -> None:
    assert half_width(0.05, 872) == pytest.approx(0.0125, abs=5e-5)
    assert half_width(0.03, 872) == pytest.approx(0.0096, abs=5e-5)
    with pytest.raises(BadInput, match="no interval"):
        half_width(0.05, 0)


def test_percentile_is_linear_and_checked() -> None:
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([1.0, 2.0], 95) == pytest.approx(1.95)
    with pytest.raises(BadInput, match="No values"):
        percentile([], 50)
    with pytest.raises(BadInput, match="percentile lies"):
        percentile([1.0], 101)


def test_round_ratios_compare_medians_round_by_round() -> None:
    assert round_ratios([[10.0, 14.0], [20.0, 21.0, 99.0]], [[4.0, 2.0], [3.0, 3.0]]).tolist() == [4.0, 7.0]


@pytest.mark.parametrize(
    ("baseline", "candidate", "message"),
    [([], [], "do not pair up"), ([[1.0]], [[1.0], [1.0]], "do not pair up"), ([[0.0]], [[1.0]], "above 0 ms")],
)
def test_round_ratios_refuse(baseline: list[list[float]], candidate: list[list[float]], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        round_ratios(baseline, candidate)


def test_a_round_cancels_drift() -> None:
    """The machine slows down steadily; in A B B A order both models meet the same slowdown."""
    speeds = np.linspace(1.0, 2.0, 40).reshape(10, 4)
    interval = ratio_interval((12.0 * speeds[:, [0, 3]]).tolist(), (4.0 * speeds[:, [1, 2]]).tolist())
    assert (interval.low, interval.high) == pytest.approx((3.0, 3.0))


@pytest.mark.parametrize("rounds", [2, 4, 8, 20])
def test_ratio_interval_covers_one_when_a_model_meets_itself(rounds: int) -> None:
    generator, repeats, covered = np.random.default_rng(13), 600, 0
    for seed in range(repeats):
        weather = generator.lognormal(0.0, 0.3, size=(rounds, 1))  # shared by both models in a round
        first, second = (10 * weather * generator.lognormal(0.0, 0.05, size=(rounds, 2)) for _ in range(2))
        interval = ratio_interval(first.tolist(), second.tolist(), sides=2, seed=seed)
        covered += interval.low <= 1.0 <= interval.high
        assert interval.low <= interval.estimate <= interval.high
    assert covered / repeats == pytest.approx(0.95, abs=0.035)


def test_one_round_bounds_nothing() -> None:
    interval = ratio_interval([[10.0, 10.0]], [[5.0, 5.0]])
    assert interval.estimate == pytest.approx(2.0)
    assert (interval.low, interval.high) == (0.0, math.inf)


@given(st.lists(st.tuples(st.floats(1, 100), st.floats(1, 100)), min_size=2, max_size=5))
def test_ratio_interval_inverts_when_the_models_swap(times: list[tuple[float, float]]) -> None:
    baseline, candidate = [[first] for first, _ in times], [[second] for _, second in times]
    one, other = ratio_interval(baseline, candidate), ratio_interval(candidate, baseline)
    assert one.estimate == pytest.approx(1 / other.estimate, rel=1e-9)
    assert one.low == pytest.approx(1 / other.high, rel=1e-6)
