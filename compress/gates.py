"""Gates: measurements in, a verdict out. Pure functions; nothing is read, timed or kept.

A gate passes on the lower one-sided bound of what it judges, never on the estimate, and the reference of the accuracy
gate is always the original teacher. A gate that cannot tell says so in `Verdict.decidable`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from compress.bootstrap import paired_summaries
from compress.record import Measurement, Verdict
from compress.statistics import (
    Floats,
    Interval,
    Sides,
    can_show,
    exact_interval,
    mcnemar_p,
    needed_examples,
    normal_quantile,
    ratio_interval,
    round_ratios,
    tango_interval,
)
from models.errors import BadInput

CONTINUITY = 0.5  # keeps the true rate of false acceptance at or below 5 % where few pairs disagree
POWER = 0.8
BOOTSTRAP_MINIMUM = 50  # examples; fewer cannot show the rare bad one
RARE = 20  # differing examples below which resampling them says too little about the tail

_MILDER: Mapping[str, str] = MappingProxyType(
    {
        "train": "training for more epochs",
        "distill": "more epochs, more unlabelled text, a student with more layers",
        "prune": "more recovery epochs, a smaller speed-up",
        "trim": "a smaller min_count, more max_pieces, more positions",
        "quantize": "leaving the most sensitive layers in float, dynamic activations",
        "export": "leaving the most sensitive layers in float before the export",
    }
)
_FASTER: Mapping[str, str] = MappingProxyType(
    {
        "train": "a smaller network",
        "distill": "a student with fewer layers or a narrower FFN",
        "prune": "a larger speed-up for the prune stage",
        "trim": "a larger speed-up for the prune stage",
        "quantize": "leaving fewer layers in float",
        "export": "a larger speed-up for the prune stage, another target",
    }
)
_SMALLER: Mapping[str, str] = MappingProxyType(
    {
        "train": "a smaller network",
        "distill": "a student with fewer layers or a narrower FFN",
        "prune": "a larger speed-up or sparsity",
        "trim": "a larger min_count, fewer max_pieces, fewer positions",
        "quantize": "leaving fewer layers in float, an int8 embedding table",
        "export": "an int8 embedding table, a smaller vocabulary (trim)",
    }
)


@dataclass(frozen=True, slots=True)
class _Paired:
    """What the two models' scores on the same examples say; gains are positive where the candidate is better."""

    interval: Interval
    worse: int
    better: int
    needed: int
    decidable: bool


def judge_accuracy(
    *, stage: str, teacher: Measurement, candidate: Measurement, max_loss: float, confidence: float = 0.95
) -> Verdict:
    """Return whether `candidate` is at most `max_loss` (in units of the metric, 0.01 is one point) below `teacher`.

    Non-inferiority on the same examples: passes when the lower one-sided bound of candidate minus teacher lies above
    -max_loss. Tango's score interval with a half-step continuity correction for 0/1 scores, the paired bootstrap for
    others (and a loss of full range for each worse example where fewer than `RARE` differ). `details`: n, b (examples
    where the teacher alone is right, or scores higher), c (the reverse), needed_n (examples that show two equal models
    to be within the margin with a power of 0.8), agreement (share of equal predictions, where there are any),
    mcnemar_p (0/1 scores). Raises BadInput where the two were not measured alike or `max_loss` is out of range.
    """
    first, second = _comparable(teacher, candidate)
    if max_loss <= 0.0 or (teacher.paired_test == "proportions" and max_loss >= 1.0):
        raise BadInput(
            f"A loss of {max_loss:g} cannot be judged: it is a share, above 0 and below 1 (1.5 points is 0.015)."
        )
    proportions = teacher.paired_test == "proportions"
    gains = second - first if teacher.higher_is_better else first - second
    if teacher.statistics:  # what an example adds depends on all the others too, so equal ones may seem to differ
        gains[(np.array(teacher.statistics) == np.array(candidate.statistics)).all(axis=1)] = 0.0
    if proportions:
        paired = _proportions(gains, max_loss, confidence)
    else:
        span = float(max(first.max(), second.max()) - min(first.min(), second.min()))
        paired = _bootstrap(gains, gain_interval(teacher, candidate, confidence=confidence), span, max_loss, confidence)
    n, interval = len(gains), paired.interval
    details: dict[str, float | int] = {"n": n, "b": paired.worse, "c": paired.better, "needed_n": paired.needed}
    if candidate.predictions and teacher.predictions:
        details["agreement"] = float(np.mean(np.equal(teacher.predictions, candidate.predictions)))
    if proportions:
        details["mcnemar_p"] = mcnemar_p(paired.worse, paired.better)
    passed = interval.low > -max_loss and (proportions or n >= BOOTSTRAP_MINIMUM)
    message = _accuracy_message(teacher, candidate, paired, n, max_loss, confidence)
    return Verdict(
        gate="accuracy",
        stage=stage,
        estimate=interval.estimate,
        low=interval.low,
        high=interval.high,
        bound=-max_loss,
        passed=passed,
        decidable=paired.decidable,
        n=n,
        details=details,
        message=message,
        advice="" if passed else _accuracy_advice(stage, paired, max_loss),
    )


def judge_speed(
    *,
    stage: str,
    baseline_rounds: Sequence[Sequence[float]],
    candidate_rounds: Sequence[Sequence[float]],
    min_speedup: float,
    max_ms: float | None = None,
    confidence: float = 0.95,
) -> Verdict:
    """Return whether the candidate is `min_speedup` times as fast as the teacher: lower one-sided bound at least that;
    and whether its median call takes at most `max_ms`, where that is asked too.

    Rounds hold the p50 in ms of each pass, interleaved (A B B A). Undecidable where the estimate reaches the bound but
    its lower bound does not: more rounds may tell. `details`: rounds, baseline_ms, candidate_ms (medians),
    slowest_ratio and fastest_ratio over the rounds. Raises BadInput on rounds that do not pair up or a speed-up that is
    not positive.
    """
    if not (math.isfinite(min_speedup) and min_speedup > 0.0):
        raise BadInput(f"A speed-up must be above 0, not {min_speedup:g}.")
    ratios = round_ratios(baseline_rounds, candidate_rounds)
    interval = ratio_interval(baseline_rounds, candidate_rounds, confidence=confidence, sides=1)
    rounds = len(ratios)
    baseline, proposed = (
        float(np.median([time for one in side for time in one])) for side in (baseline_rounds, candidate_rounds)
    )
    in_time = max_ms is None or proposed <= max_ms
    passed = interval.low >= min_speedup and in_time
    decidable = rounds > 1 and not interval.low < min_speedup <= interval.estimate
    message = (
        f"speed gate: {interval.estimate:.2f} times as fast as the teacher ({proposed:.3f} ms vs {baseline:.3f} ms), "
        f"{_percent(confidence)} lower bound {interval.low:.2f}, required {min_speedup:g}"
        f"{'' if max_ms is None else f' and {max_ms:g} ms at most'} (rounds = {rounds})."
    )
    message += "" if interval.low >= min_speedup else f" Missed by {_missed(min_speedup - interval.low)}."
    message += "" if in_time or max_ms is None else f" Too slow by {_missed(proposed - max_ms, 3)} ms."
    if not decidable:
        noisy = " Too noisy to decide: the estimate reaches what is required, its lower bound does not."
        message += noisy if rounds > 1 else " One round says nothing about its own noise."
    details: dict[str, float | int] = {"rounds": rounds, "baseline_ms": baseline, "candidate_ms": proposed}
    details |= {"slowest_ratio": float(ratios.min()), "fastest_ratio": float(ratios.max())}
    bound = max(min_speedup, 0.0 if max_ms is None else baseline / max_ms)
    return Verdict(
        gate="speed",
        stage=stage,
        estimate=interval.estimate,
        low=interval.low,
        high=interval.high if math.isfinite(interval.high) else None,
        bound=bound,
        passed=passed,
        decidable=decidable,
        n=rounds,
        details=details if max_ms is None else details | {"max_ms": max_ms},
        message=message,
        advice="" if passed else _speed_advice(stage, interval, rounds, bound),
    )


def judge_size(
    *,
    stage: str,
    teacher_bytes: int,
    candidate_bytes: int,
    min_ratio: float | None = None,
    max_bytes: int | None = None,
) -> Verdict:
    """Return whether the candidate is small enough: `min_ratio` times smaller than the teacher, `max_bytes`, or both.

    The verdict's figure is the ratio; a limit in bytes is turned into one. Raises BadInput on sizes that are not
    positive or where neither limit is given.
    """
    if teacher_bytes < 1 or candidate_bytes < 1:
        raise BadInput(f"Sizes must be at least one byte: teacher {teacher_bytes}, candidate {candidate_bytes}.")
    limits = [limit for limit in (min_ratio, max_bytes) if limit is not None]
    if not limits or min(limits) <= 0 or not all(map(math.isfinite, limits)):
        raise BadInput(f"A size gate needs min_ratio or max_bytes, above 0: got {min_ratio} and {max_bytes}.")
    ratio = teacher_bytes / candidate_bytes
    bound = max(min_ratio or 0.0, teacher_bytes / max_bytes if max_bytes else 0.0)
    small_enough = max_bytes is None or candidate_bytes <= max_bytes
    passed = small_enough and (min_ratio is None or ratio >= min_ratio)
    required = [f"{min_ratio:g} times"] if min_ratio else []
    required += [f"{max_bytes / 1e6:.3g} MB at most"] if max_bytes else []
    message = (
        f"size gate: {candidate_bytes / 1e6:.3g} MB, {ratio:.2f} times smaller than the teacher's "
        f"{teacher_bytes / 1e6:.3g} MB, required {' and '.join(required)}."
    )
    if not passed:
        over = candidate_bytes - teacher_bytes / bound
        message += f" Too large by {over / 1e6:.3g} MB."
    details: dict[str, float | int] = {"teacher_bytes": teacher_bytes, "candidate_bytes": candidate_bytes}
    if max_bytes is not None:
        details["max_bytes"] = max_bytes
    return Verdict(
        gate="size",
        stage=stage,
        estimate=ratio,
        low=ratio,
        high=ratio,
        bound=bound,
        passed=passed,
        decidable=True,
        n=1,
        details=details,
        message=message,
        advice="" if passed else f"Try {_either(_SMALLER.get(stage, 'a smaller model'), f'min_ratio {ratio:.2g}')}.",
    )


def judge_agreement(*, stage: str, measured: Measurement, min_share: float, confidence: float = 0.95) -> Verdict:
    """Return whether the answers on texts from elsewhere are those before the stage, on `min_share` of them at least.

    `measured` is scored 1 where they are. Passes on the exact lower one-sided bound (Clopper and Pearson), which holds
    near 1 too. Undecidable where even equal answers on all these texts could not show it. `details`: n, same, needed_n
    (texts that could, if all answers were equal). Raises BadInput on a share that is not between 0 and 1.
    """
    if not 0.0 < min_share < 1.0:
        raise BadInput(f"A share lies between 0 and 1, not at {min_share:g}.")
    n, same = len(measured.scores), round(sum(measured.scores))
    interval = exact_interval(same, n, confidence=confidence, sides=1)
    needed = math.ceil(math.log1p(-confidence) / math.log(min_share))
    passed, decidable = interval.low >= min_share, n >= needed
    message = (
        f"agreement gate: {100 * interval.estimate:.1f} % of texts from elsewhere are answered as before, at least "
        f"{100 * interval.low:.2f} % with {_percent(confidence)} confidence, required {100 * min_share:g} % (n = {n})."
    )
    message += "" if passed else f" Missed by {_missed(100 * (min_share - interval.low))} pt."
    if not decidable:
        message += f" Too few texts to decide: even equal answers on all {n} cannot show it; {needed} can."
    lower = math.floor(100 * interval.low) / 100
    milder = f"Try {_either(_MILDER['trim'], f'min_share {lower:g}' if lower >= 0.5 else '')}."
    return Verdict(
        gate="agreement",
        stage=stage,
        estimate=interval.estimate,
        low=interval.low,
        high=interval.high,
        bound=min_share,
        passed=passed,
        decidable=decidable,
        n=n,
        details={"n": n, "same": same, "needed_n": needed},
        message=message,
        advice="" if passed else milder if decidable else f"Give {needed} texts from elsewhere or more. {milder}",
    )


def _comparable(teacher: Measurement, candidate: Measurement) -> tuple[Floats, Floats]:
    """Return both (n,) score vectors, or raise BadInput with what keeps them from being compared one by one."""
    for name in ("data", "metric", "paired_test", "summary", "higher_is_better"):
        theirs, ours = getattr(teacher, name), getattr(candidate, name)
        if theirs != ours:
            raise BadInput(f"Teacher and candidate differ in {name}: {theirs} and {ours}.", fix="Measure both again.")
    if teacher.targets != candidate.targets:
        raise BadInput("Teacher and candidate were scored against different targets.", fix="Measure both again.")
    first, second = (np.asarray(one.scores, dtype=np.float64) for one in (teacher, candidate))
    if first.size != second.size:
        raise BadInput(f"The teacher has {first.size} scores, the candidate {second.size}: they cannot be paired.")
    if first.size == 0:
        raise BadInput("There are no scores to compare.", fix="Give a validation set with labelled examples.")
    for who, scores in (("teacher", first), ("candidate", second)):
        bad = int((~np.isfinite(scores)).sum())
        if bad:
            raise BadInput(f"{bad} of {scores.size} scores of the {who} are not finite numbers.")
        if teacher.paired_test == "proportions" and not np.isin(scores, (0.0, 1.0)).all():
            raise BadInput(f"The {who}'s scores are to be compared as proportions, so each must be 0 or 1.")
    return first, second


def _proportions(gains: Floats, max_loss: float, confidence: float) -> _Paired:
    n, worse, better = len(gains), int((gains < 0).sum()), int((gains > 0).sum())
    share = (worse + better) / n
    return _Paired(
        interval=tango_interval(n, worse, better, confidence=confidence, sides=1, continuity=CONTINUITY),
        worse=worse,
        better=better,
        needed=needed_examples(share, max_loss, confidence=confidence, power=POWER),
        decidable=can_show(n, share, max_loss, confidence=confidence, continuity=CONTINUITY),
    )


def gain_interval(
    teacher: Measurement, candidate: Measurement, *, confidence: float = 0.95, sides: Sides = 1
) -> Interval:
    """Return the interval of candidate minus teacher, positive being better: Tango's for 0/1 scores, or a bootstrap."""
    ordered = (teacher, candidate) if teacher.higher_is_better else (candidate, teacher)
    if teacher.paired_test == "proportions":
        gains = np.subtract(ordered[1].scores, ordered[0].scores)
        worse, better = (int(one.sum()) for one in (gains < 0, gains > 0))
        return tango_interval(len(gains), worse, better, confidence=confidence, sides=sides)
    first, second = (np.array(one.statistics or [[score] for score in one.scores]) for one in ordered)
    return paired_summaries(teacher.summary, first, second, confidence=confidence, sides=sides)


def _bootstrap(gains: Floats, interval: Interval, span: float, max_loss: float, confidence: float) -> _Paired:
    """Return what a bootstrap says; `span` is the range of the scores, the most one example can lose."""
    n, worse, better = len(gains), int((gains < 0).sum()), int((gains > 0).sum())
    if worse + better < RARE:
        # Resampling cannot invent the bad examples that a small sample happens to lack; the score interval allows them.
        low = tango_interval(n, worse, 0, confidence=confidence, sides=1, continuity=CONTINUITY).low * span
        high = tango_interval(n, 0, better, confidence=confidence, sides=1, continuity=CONTINUITY).high * span
        interval = Interval(interval.estimate, min(low, interval.low), max(high, interval.high))
    error = float(gains.std(ddof=1)) if n > 1 else 0.0
    quantiles = normal_quantile(confidence, sides=1) + normal_quantile(POWER, sides=1)
    return _Paired(
        interval=interval,
        worse=worse,
        better=better,
        needed=max(BOOTSTRAP_MINIMUM, math.ceil((quantiles * error / max_loss) ** 2)),
        decidable=n >= BOOTSTRAP_MINIMUM and interval.estimate - interval.low < max_loss,
    )


def _accuracy_message(
    teacher: Measurement, candidate: Measurement, paired: _Paired, n: int, max_loss: float, confidence: float
) -> str:
    interval, share = paired.interval, (paired.worse + paired.better) / n
    if teacher.paired_test == "proportions":
        values = f"{100 * candidate.estimate:.1f} % vs {100 * teacher.estimate:.1f} % teacher"
        counts = f"teacher-only right {paired.worse}, candidate-only right {paired.better}"
        unit, scale, digits = " pt", 100.0, 2
    else:
        values = f"{candidate.metric} {candidate.estimate:.4g} vs {teacher.estimate:.4g} teacher"
        counts = f"worse on {paired.worse}, better on {paired.better}"
        unit, scale, digits = "", 1.0, 4
    change = "gain" if interval.estimate > 0 else "loss"
    message = (
        f"accuracy gate: {values}, {change} {abs(interval.estimate) * scale:.{digits}f}{unit}, "
        f"{'' if change == 'loss' else 'loss '}below {-interval.low * scale:.{digits}f}{unit} "
        f"with {_percent(confidence)} confidence, "
        f"allowed {max_loss * scale:g}{unit} (n = {n}, {counts})."
    )
    if interval.low <= -max_loss:
        message += f" Missed by {_missed((-max_loss - interval.low) * scale, digits)}{unit}."
    if not paired.decidable:
        message += (
            f" Too few examples to decide: {n} of them, {100 * share:.1f} % scored differently, cannot show a loss "
            f"below {max_loss * scale:g}{unit} even of an equally good model; about {paired.needed} can."
        )
    return message


def _accuracy_advice(stage: str, paired: _Paired, max_loss: float) -> str:
    # The setting is in points and people move it by halves; a bound far beyond the wish is no advice.
    points = (math.floor(-paired.interval.low * 200) + 1) / 2
    wider = f"max_loss {points:.1f}" if 100 * max_loss < points <= 300 * max_loss else ""
    milder = f"Try {_either(_MILDER.get(stage, 'a milder setting'), wider)}."
    return milder if paired.decidable else f"Give about {paired.needed} validation examples. {milder}"


def _speed_advice(stage: str, interval: Interval, rounds: int, min_speedup: float) -> str:
    if interval.estimate >= min_speedup:
        return f"Measure more than {rounds} rounds on a quiet machine, or try min_speedup {_floor(interval.low)}."
    slower = f"min_speedup {_floor(interval.low)}" if interval.low >= 0.1 else ""
    return f"Try {_either(_FASTER.get(stage, 'a smaller model'), slower)}."


def _either(choices: str, last: str) -> str:
    return f"{choices}, or {last}" if last else choices


def _floor(speedup: float) -> str:
    return f"{math.floor(speedup * 10) / 10:.1f}"


def _percent(confidence: float) -> str:
    return f"{100 * confidence:g} %"


def _missed(amount: float, digits: int = 2) -> str:
    smallest = 10.0**-digits
    return f"{amount:.{digits}f}" if amount >= smallest / 2 else f"less than {smallest:.{digits}f}"
