"""Which gates a stage's output is asked, and what they decide."""

from __future__ import annotations

from compress.gates import judge_accuracy, judge_agreement, judge_size, judge_speed
from compress.goal_settings import Gates
from compress.record import Measurement, Verdict
from models.errors import BadInput

BYTES_PER_MB = 1_000_000
POINTS = 100  # a gate's bound is said in points, the metric is a share


def judge(
    gates: Gates, *, stage: str, teacher: Measurement, candidate: Measurement, foreign: Measurement | None = None
) -> list[Verdict]:
    """Return the verdicts of every gate that is asked, accuracy first.

    `foreign` says on which texts from elsewhere the candidate answers as the stage's input; None where not asked.

    Raises:
        BadInput: a speed gate is asked of a candidate that was not timed beside the teacher.
    """
    verdicts = []
    if gates.accuracy is not None:
        verdicts.append(
            judge_accuracy(
                stage=stage,
                teacher=teacher,
                candidate=candidate,
                max_loss=gates.accuracy.max_loss / POINTS,
                confidence=gates.accuracy.confidence,
            )
        )
    if foreign is not None:
        share, confidence = gates.agreement.min_share, gates.agreement.confidence
        verdicts.append(judge_agreement(stage=stage, measured=foreign, min_share=share, confidence=confidence))
    if gates.speed is not None:
        if candidate.latency is None or candidate.baseline_latency is None:
            raise BadInput("a speed gate needs a candidate that was timed beside the teacher", where=stage)
        verdicts.append(
            judge_speed(
                stage=stage,
                baseline_rounds=candidate.baseline_latency.rounds,
                candidate_rounds=candidate.latency.rounds,
                min_speedup=gates.speed.min_speedup,
                max_ms=gates.speed.max_ms,
                confidence=gates.speed.confidence,
            )
        )
    if gates.size is not None:
        verdicts.append(
            judge_size(
                stage=stage,
                teacher_bytes=teacher.bytes,
                candidate_bytes=candidate.bytes,
                min_ratio=gates.size.min_ratio,
                max_bytes=None if gates.size.max_mb is None else round(gates.size.max_mb * BYTES_PER_MB),
            )
        )
    return verdicts
