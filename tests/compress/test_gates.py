"""Verdicts: what passes, what cannot be told, and what is said about it."""

from __future__ import annotations

import functools
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress import gates
from compress.bootstrap import paired_summaries
from compress.gates import judge_accuracy, judge_agreement, judge_size, judge_speed
from compress.record import Environment, Measurement, Verdict
from compress.statistics import metric_interval, needed_examples, tango_interval
from models.errors import BadInput
from models.summary import Summary, contributions

ENVIRONMENT = Environment(
    cpu="x", cores=2, threads=1, os="linux", python="3.11", torch="2.13", onnxruntime="1.2", flags=[]
)


def measured(scores: list[float], **changes: Any) -> Measurement:
    """Return a measurement of these scores; with `changes` in place of its other values."""
    kind = changes.get("paired_test", "proportions")
    interval = metric_interval(scores, paired_test=kind)
    values: dict[str, Any] = {
        "artifact": "a",
        "data": "d",
        "metric": "accuracy",
        "higher_is_better": True,
        "paired_test": kind,
        "summary": "mean",
        "statistics": [],
        "scores": scores,
        "predictions": [],
        "targets": [],
        "estimate": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "bytes": 10,
        "parameters": 5,
        "latency": None,
        "baseline_latency": None,
        "environment": ENVIRONMENT,
        "truncated": 0,
    }
    return Measurement(**(values | changes))


def judged(n: int, b: int, c: int, *, max_loss: float, stage: str = "prune", right: int | None = None) -> Verdict:
    """Judge two models of which the teacher alone is right on `b` examples and the candidate alone on `c`."""
    both = n - b - c if right is None else right
    neither = n - b - c - both
    teacher = measured([1.0] * (both + b) + [0.0] * (c + neither))
    candidate = measured([1.0] * both + [0.0] * b + [1.0] * c + [0.0] * neither)
    return judge_accuracy(stage=stage, teacher=teacher, candidate=candidate, max_loss=max_loss)


def noisy(seed: int, n: int, loss: float, **changes: Any) -> tuple[Measurement, Measurement]:
    generator = np.random.default_rng(seed)
    teacher = generator.uniform(0.4, 0.9, size=n)
    candidate = teacher - loss + generator.normal(0.0, 0.05, size=n)
    kind: dict[str, Any] = {"paired_test": "bootstrap", "metric": "f1"} | changes
    return measured(teacher.tolist(), **kind), measured(candidate.tolist(), **kind)


def test_accuracy_message_tells_everything() -> None:
    verdict = judged(872, 31, 20, max_loss=0.01, right=775)
    assert verdict.message == (
        "accuracy gate: 91.2 % vs 92.4 % teacher, loss 1.26 pt, below 2.72 pt with 95 % confidence, allowed 1 pt "
        "(n = 872, teacher-only right 31, candidate-only right 20). Missed by 1.72 pt. Too few examples to decide: "
        "872 of them, 5.8 % scored differently, cannot show a loss below 1 pt even of an equally good model; "
        "about 3616 can."
    )
    assert verdict.advice == (
        "Give about 3616 validation examples. Try more recovery epochs, a smaller speed-up, or max_loss 3.0."
    )


def test_accuracy_verdict_holds_its_figures() -> None:
    verdict = judged(5000, 60, 55, max_loss=0.01)
    expected = tango_interval(5000, 60, 55, sides=1, continuity=0.5)
    assert (verdict.estimate, verdict.low, verdict.high) == (expected.estimate, expected.low, expected.high)
    assert (verdict.gate, verdict.stage, verdict.bound, verdict.n) == ("accuracy", "prune", -0.01, 5000)
    assert verdict.passed
    assert verdict.decidable
    assert verdict.advice == ""
    assert "Missed" not in verdict.message
    assert verdict.details["b"] == 60
    assert verdict.details["c"] == 55
    assert verdict.details["needed_n"] == needed_examples(0.023, 0.01)
    assert verdict.details["mcnemar_p"] == pytest.approx(0.709, abs=1e-3)


def test_the_bound_decides_and_not_the_estimate() -> None:
    verdict = judged(2000, 60, 45, max_loss=0.01)
    assert verdict.estimate > -0.01
    assert not verdict.passed
    assert verdict.decidable


def test_a_candidate_that_wins_passes_even_with_few_examples() -> None:
    verdict = judged(300, 1, 20, max_loss=0.01)
    assert verdict.passed
    assert not verdict.decidable
    assert "gain 6.33 pt" in verdict.message
    assert "Too few examples" in verdict.message


def test_equal_predictions_are_no_proof_when_they_are_few() -> None:
    assert not judged(100, 0, 0, max_loss=0.01).passed
    assert not judged(100, 0, 0, max_loss=0.01).decidable
    assert judged(1000, 0, 0, max_loss=0.01).passed


@given(st.integers(1, 3000), st.data(), st.floats(0.001, 0.3))
def test_accuracy_verdicts_are_consistent(n: int, data: st.DataObject, max_loss: float) -> None:
    b = data.draw(st.integers(0, min(n, 80)))
    c = data.draw(st.integers(0, min(n - b, 80)))
    verdict = judged(n, b, c, max_loss=max_loss)
    assert verdict.passed == (verdict.low > verdict.bound)
    assert (verdict.advice == "") == verdict.passed
    assert ("Missed by" in verdict.message) != verdict.passed
    assert ("Too few examples" in verdict.message) != verdict.decidable
    if verdict.decidable and c >= b:
        assert verdict.passed


def test_false_accepts_of_the_gate_at_the_margin() -> None:
    """Whole verdicts on drawn examples: a true loss of exactly the margin passes in at most 5 % of draws."""
    draws, n = 1500, 600
    drawn = np.random.default_rng(17).multinomial(n, [0.04, 0.02, 0.94], size=draws)
    tables, times = np.unique(drawn, axis=0, return_counts=True)  # a table is judged once
    passed = sum(
        int(many)
        for (b, c, _), many in zip(tables, times, strict=True)
        if judged(n, int(b), int(c), max_loss=0.02).passed
    )
    assert passed / draws <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)
    assert passed / draws >= 0.02


def test_false_accepts_of_the_bootstrap_gate_at_the_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few examples differ, by uneven amounts, and the true loss is exactly the margin."""
    fewer = functools.partial(paired_summaries, resamples=200)
    monkeypatch.setattr(gates, "paired_summaries", fewer)
    template = measured([0.5, 0.6], paired_test="bootstrap")
    generator, draws, n, passed = np.random.default_rng(19), 600, 300, 0
    for _ in range(draws):
        teacher = generator.uniform(0.0, 1.0, size=n)
        hit = generator.random(n) < 0.1
        candidate = np.where(hit, np.where(generator.random(n) < 0.7, teacher - 0.5, teacher + 0.5), teacher)
        first, second = (template.model_copy(update={"scores": scores.tolist()}) for scores in (teacher, candidate))
        passed += judge_accuracy(stage="prune", teacher=first, candidate=second, max_loss=0.02).passed
    assert passed / draws <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)


def test_bootstrap_verdict_of_another_metric() -> None:
    teacher, candidate = noisy(1, 400, 0.01)
    verdict = judge_accuracy(stage="distill", teacher=teacher, candidate=candidate, max_loss=0.02)
    assert verdict.passed
    assert verdict.decidable
    assert verdict.estimate == pytest.approx(-0.01, abs=0.01)
    assert verdict.low == pytest.approx(verdict.estimate - 1.645 * 0.05 / 20, abs=1e-3)
    assert verdict.message.startswith("accuracy gate: f1 0.6")
    assert "mcnemar_p" not in verdict.details
    assert not judge_accuracy(stage="distill", teacher=teacher, candidate=candidate, max_loss=0.01).passed


def test_bootstrap_says_when_examples_are_too_few() -> None:
    """The half width is 1.645 * 0.05 / 20 = 0.0041 at 400 examples."""
    teacher, candidate = noisy(1, 400, 0.0)
    tight = judge_accuracy(stage="distill", teacher=teacher, candidate=candidate, max_loss=0.003)
    assert not tight.decidable
    assert "Too few examples" in tight.message
    assert tight.details["needed_n"] == pytest.approx((2.486 * 0.05 / 0.003) ** 2, rel=0.1)
    assert judge_accuracy(stage="distill", teacher=teacher, candidate=candidate, max_loss=0.005).decidable


def test_a_metric_that_should_be_small_is_turned_round() -> None:
    teacher, candidate = noisy(1, 400, 0.01, higher_is_better=False)
    better = judge_accuracy(stage="distill", teacher=teacher, candidate=candidate, max_loss=0.005)
    worse = judge_accuracy(stage="distill", teacher=candidate, candidate=teacher, max_loss=0.005)
    assert better.passed
    assert better.estimate > 0
    assert not worse.passed
    assert worse.estimate == -better.estimate
    assert better.details["b"] == worse.details["c"]


def test_bootstrap_needs_a_minimum_of_examples() -> None:
    teacher, candidate = noisy(1, 49, -0.2)
    verdict = judge_accuracy(stage="distill", teacher=teacher, candidate=candidate, max_loss=0.01)
    assert verdict.low > 0
    assert not verdict.passed
    assert not verdict.decidable


def test_bootstrap_does_not_take_few_differences_for_none() -> None:
    """Resampling equal scores gives a bound of zero; the examples not seen may differ."""
    scores = np.linspace(0.0, 1.0, 100).tolist()
    same = measured(scores, paired_test="bootstrap")
    verdict = judge_accuracy(stage="distill", teacher=same, candidate=same, max_loss=0.02)
    assert verdict.low < -0.02
    assert not verdict.passed
    assert judge_accuracy(stage="distill", teacher=same, candidate=same, max_loss=0.05).passed


def test_agreement_is_the_share_of_equal_predictions() -> None:
    teacher = measured([1, 1, 1, 0], predictions=[0, 1, 1, 0], targets=[0, 1, 1, 1])
    candidate = measured([1, 1, 0, 0], predictions=[0, 1, 0, 0], targets=[0, 1, 1, 1])
    verdict = judge_accuracy(stage="prune", teacher=teacher, candidate=candidate, max_loss=0.1)
    assert verdict.details["agreement"] == 0.75
    assert "agreement" not in judged(4, 1, 0, max_loss=0.1).details


@pytest.mark.parametrize("max_loss", [0.0, -0.01, 1.0, 1.5])
def test_accuracy_refuses_a_margin_in_points(max_loss: float) -> None:
    with pytest.raises(BadInput, match="1.5 points is 0.015"):
        judged(10, 1, 1, max_loss=max_loss)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": [1.0, 0.0]}, "teacher has 3 scores, the candidate 2"),
        ({"scores": []}, "teacher has 3 scores, the candidate 0"),
        ({"scores": [1.0, math.nan, 0.0]}, "1 of 3 scores of the candidate are not finite"),
        ({"scores": [1.0, 0.5, 0.0]}, "candidate's scores are to be compared as proportions"),
        ({"data": "other"}, "differ in data: d and other"),
        ({"metric": "f1"}, "differ in metric: accuracy and f1"),
        ({"paired_test": "bootstrap"}, "differ in paired_test"),
        ({"higher_is_better": False}, "differ in higher_is_better"),
        ({"targets": [1, 1, 1]}, "different targets"),
    ],
)
def test_accuracy_refuses_what_cannot_be_paired(changes: dict[str, Any], message: str) -> None:
    teacher = measured([1.0, 1.0, 0.0])
    with pytest.raises(BadInput, match=message):
        judge_accuracy(stage="prune", teacher=teacher, candidate=teacher.model_copy(update=changes), max_loss=0.01)


def test_accuracy_refuses_no_examples() -> None:
    empty = measured([1.0]).model_copy(update={"scores": []})
    with pytest.raises(BadInput, match="no scores to compare"):
        judge_accuracy(stage="prune", teacher=empty, candidate=empty, max_loss=0.01)


def rounds(milliseconds: float, count: int, *, noise: float = 0.01, seed: int = 0) -> list[list[float]]:
    generator = np.random.default_rng(seed)
    times: list[list[float]] = (milliseconds * generator.lognormal(0.0, noise, size=(count, 2))).tolist()
    return times


def test_speed_passes_on_its_lower_bound() -> None:
    verdict = judge_speed(
        stage="prune", baseline_rounds=rounds(20, 10), candidate_rounds=rounds(4, 10, seed=1), min_speedup=4.8
    )
    assert verdict.passed
    assert verdict.decidable
    assert verdict.low < verdict.estimate < (verdict.high or 0)
    assert verdict.estimate == pytest.approx(5.0, abs=0.05)
    assert verdict.details["baseline_ms"] == pytest.approx(20, abs=0.2)
    assert verdict.details["candidate_ms"] == pytest.approx(4, abs=0.05)
    assert verdict.details["slowest_ratio"] <= verdict.estimate <= verdict.details["fastest_ratio"]
    assert verdict.details["rounds"] == verdict.n == 10
    assert verdict.advice == ""


def test_speed_says_by_how_much_it_failed() -> None:
    verdict = judge_speed(
        stage="prune", baseline_rounds=[[20.0, 20.0]] * 8, candidate_rounds=[[5.0, 5.0]] * 8, min_speedup=5.0
    )
    assert not verdict.passed
    assert verdict.decidable
    assert verdict.message == (
        "speed gate: 4.00 times as fast as the teacher (5.000 ms vs 20.000 ms), 95 % lower bound 4.00, "
        "required 5 (rounds = 8). Missed by 1.00."
    )
    assert verdict.advice == "Try a larger speed-up for the prune stage, or min_speedup 4.0."


def test_speed_that_is_reached_exactly_passes() -> None:
    same = [[3.0, 3.0]] * 4
    assert judge_speed(stage="x", baseline_rounds=same, candidate_rounds=same, min_speedup=1.0).passed


def test_speed_in_noise_is_undecidable() -> None:
    verdict = judge_speed(
        stage="prune",
        baseline_rounds=[[16.0], [28.0], [20.0], [30.0]],
        candidate_rounds=[[4.0]] * 4,
        min_speedup=5.0,
    )
    assert verdict.estimate > 5.0
    assert not verdict.passed
    assert not verdict.decidable
    assert "Too noisy to decide" in verdict.message
    assert verdict.advice.startswith("Measure more than 4 rounds")


def test_one_round_never_passes() -> None:
    verdict = judge_speed(stage="x", baseline_rounds=[[100.0]], candidate_rounds=[[1.0]], min_speedup=1.0)
    assert not verdict.passed
    assert not verdict.decidable
    assert verdict.high is None
    assert "One round says nothing" in verdict.message


@pytest.mark.parametrize("min_speedup", [0.0, -1.0, math.nan, math.inf])
def test_speed_refuses_a_target_that_is_none(min_speedup: float) -> None:
    with pytest.raises(BadInput, match="above 0"):
        judge_speed(stage="x", baseline_rounds=[[1.0]], candidate_rounds=[[1.0]], min_speedup=min_speedup)


def test_speed_false_accepts_at_the_target() -> None:
    """A candidate exactly as fast as required passes in at most 5 % of noisy repetitions."""
    repeats = 800
    passed = sum(
        judge_speed(
            stage="x",
            baseline_rounds=rounds(10, 8, noise=0.05, seed=2 * i),
            candidate_rounds=rounds(5, 8, noise=0.05, seed=2 * i + 1),
            min_speedup=2.0,
        ).passed
        for i in range(repeats)
    )
    assert 0.02 <= passed / repeats <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repeats)


def test_size_compares_bytes() -> None:
    verdict = judge_size(stage="export", teacher_bytes=100_000_000, candidate_bytes=25_000_000, min_ratio=4.0)
    assert verdict.passed
    assert verdict.estimate == verdict.low == verdict.high == 4.0
    assert verdict.message == "size gate: 25 MB, 4.00 times smaller than the teacher's 100 MB, required 4 times."


def test_size_says_by_how_much_it_failed() -> None:
    verdict = judge_size(
        stage="quantize", teacher_bytes=100_000_000, candidate_bytes=25_000_001, min_ratio=2.0, max_bytes=20_000_000
    )
    assert not verdict.passed
    assert verdict.bound == 5.0
    assert verdict.message.endswith("required 2 times and 20 MB at most. Too large by 5 MB.")
    assert verdict.advice == "Try leaving fewer layers in float, an int8 embedding table, or min_ratio 4."
    assert verdict.details["max_bytes"] == 20_000_000


@given(st.integers(1, 10**10), st.integers(1, 10**10), st.integers(1, 10**10))
def test_size_limit_in_bytes_is_exact(teacher: int, candidate: int, most: int) -> None:
    verdict = judge_size(stage="export", teacher_bytes=teacher, candidate_bytes=candidate, max_bytes=most)
    assert verdict.passed == (candidate <= most)
    assert verdict.passed == (verdict.low >= verdict.bound)


@pytest.mark.parametrize("limits", [{}, {"min_ratio": 0.0}, {"max_bytes": -1}, {"min_ratio": math.nan}])
def test_size_refuses_no_limit(limits: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="needs min_ratio or max_bytes"):
        judge_size(stage="export", teacher_bytes=10, candidate_bytes=5, **limits)


def test_size_refuses_nothing() -> None:
    with pytest.raises(BadInput, match="at least one byte"):
        judge_size(stage="export", teacher_bytes=10, candidate_bytes=0, min_ratio=1.0)


@pytest.mark.parametrize("stage", ["train", "distill", "prune", "quantize", "export", "another"])
def test_every_failure_comes_with_advice(stage: str) -> None:
    assert judged(500, 100, 0, max_loss=0.01, stage=stage).advice
    slow = judge_speed(stage=stage, baseline_rounds=[[1.0]] * 3, candidate_rounds=[[50.0]] * 3, min_speedup=2.0)
    assert slow.advice.startswith("Try ")
    assert "min_speedup" not in slow.advice
    assert judge_size(stage=stage, teacher_bytes=1, candidate_bytes=2, min_ratio=1.0).advice.startswith("Try ")


def test_judging_loads_no_torch() -> None:
    code = "import sys, compress.gates; print([m for m in ('torch', 'onnx', 'onnxruntime') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def agreed(same: int, n: int, **settings: float) -> Verdict:
    scores = [1.0] * same + [0.0] * (n - same)
    return judge_agreement(stage="trim", measured=measured(scores), **({"min_share": 0.97} | settings))


def test_agreement_passes_on_its_lower_bound() -> None:
    verdict = agreed(1970, 2000)
    assert verdict.passed
    assert verdict.advice == ""
    assert verdict.low < verdict.estimate == 0.985
    assert verdict.message == (
        "agreement gate: 98.5 % of texts from elsewhere are answered as before, at least 97.97 % with 95 % confidence, "
        "required 97 % (n = 2000)."
    )
    close = agreed(1945, 2000)  # 97.25 %, but its lower bound is below 97 %
    assert not close.passed
    assert close.decidable
    assert "Missed by" in close.message
    assert close.advice == "Try a smaller min_count, more max_pieces, more positions, or min_share 0.96."
    assert agreed(1945, 2000, min_share=0.96).passed


def test_agreement_says_when_there_are_too_few_texts() -> None:
    few = agreed(50, 50)
    assert not few.passed
    assert not few.decidable
    assert few.details["needed_n"] == 99
    assert "99 can" in few.message
    assert few.advice.startswith("Give 99 texts")
    assert agreed(99, 99).passed
    assert not agreed(98, 98).passed


def test_agreement_needs_a_share() -> None:
    with pytest.raises(BadInput, match="between 0 and 1"):
        agreed(1, 2, min_share=1.0)


@pytest.mark.parametrize("share", [0.9, 0.965, 0.97])
def test_too_few_equal_answers_pass_in_one_of_twenty_samples_at_most(share: float) -> None:
    draws = np.random.default_rng(0).binomial(400, share, 2000)
    counts, times = np.unique(draws, return_counts=True)
    passed = sum(int(many) for same, many in zip(counts, times, strict=True) if agreed(int(same), 400).passed)
    assert passed / len(draws) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / len(draws))


def test_a_metric_that_is_no_mean_is_judged_by_drawing_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = functools.partial(paired_summaries, resamples=2000)
    monkeypatch.setattr(gates, "paired_summaries", fewer)
    random = np.random.default_rng(3)
    expected = random.normal(size=300)
    answers = [expected + noise * random.normal(size=300) for noise in (0.3, 0.31, 0.8)]

    def of(predicted: np.ndarray) -> Measurement:
        statistics = np.stack([predicted, expected], axis=1)
        scores = contributions(Summary.SPEARMAN, statistics)
        told = {"metric": "spearman", "summary": Summary.SPEARMAN, "statistics": statistics.tolist()}
        return measured(scores.tolist(), paired_test="bootstrap", estimate=float(scores.mean()), **told)

    teacher, near, far = (of(predicted) for predicted in answers)
    good = judge_accuracy(stage="prune", teacher=teacher, candidate=near, max_loss=0.02)
    bad = judge_accuracy(stage="prune", teacher=teacher, candidate=far, max_loss=0.02)
    assert good.passed
    assert not bad.passed
    for verdict, candidate in ((good, near), (bad, far)):
        assert verdict.estimate == pytest.approx(candidate.estimate - teacher.estimate)
        found = fewer(Summary.SPEARMAN, np.array(teacher.statistics), np.array(candidate.statistics))
        assert (verdict.low, verdict.high) == (found.low, found.high)
    assert f"spearman {near.estimate:.4g} vs {teacher.estimate:.4g} teacher" in good.message


def test_examples_that_are_answered_alike_are_neither_worse_nor_better() -> None:
    counts = np.ones((200, 3))
    worse = counts.copy()
    worse[:3] = [0, 2, 1]  # two wrong spans for a right one
    worse[3] = [0, 1, 1]

    def of(statistics: np.ndarray) -> Measurement:
        scores = contributions(Summary.F1, statistics)
        told = {"metric": "span_f1", "summary": Summary.F1, "statistics": statistics.tolist()}
        return measured(scores.tolist(), paired_test="bootstrap", estimate=float(scores.mean()), **told)

    verdict = judge_accuracy(stage="prune", teacher=of(counts), candidate=of(worse), max_loss=0.1)
    assert (verdict.details["b"], verdict.details["c"]) == (4, 0)
    assert verdict.estimate == pytest.approx(2 * 196 / (203 + 200) - 1)
