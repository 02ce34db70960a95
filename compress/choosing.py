"""What the points of a search are worth, and which one is handed over."""

from __future__ import annotations

from collections.abc import Sequence

from compress.goal_settings import SearchSettings
from compress.record import StageResult


def choose(points: Sequence[StageResult], settings: SearchSettings) -> StageResult | None:
    """Return the point to hand over: the fastest that passed or, with a bound on latency or size, the most accurate."""
    good = [point for point in points if passed(point)]
    if not good:
        return None
    if is_modest(settings):
        better = 1 if good[0].validation.higher_is_better else -1
        return max(good, key=lambda point: better * point.validation.estimate)
    return max(good, key=_speedup)


def score(points: Sequence[StageResult]) -> float:
    """Return how good a family is: the speed-up of its fastest point that passed, 0 where none did."""
    return max((_speedup(point) for point in points if passed(point)), default=0.0)


def is_modest(settings: SearchSettings) -> bool:
    """Return whether a model need only be fast or small enough, not as fast as can be."""
    return settings.max_latency is not None or settings.max_size is not None


def passed(point: StageResult) -> bool:
    """Return whether a point is a level, and not the trimmed model that it began with, and passed all its gates."""
    is_level = any(verdict.gate == "speed" for verdict in point.verdicts)
    return is_level and all(verdict.passed for verdict in point.verdicts)


def changed(point: StageResult) -> bool:
    """Return whether the trimmed model answers too much otherwise on texts from elsewhere."""
    return _failed(point, "agreement")


def lost(point: StageResult) -> bool:
    """Return whether a level is not shown to lose as little as is allowed."""
    return _failed(point, "accuracy")


def _failed(point: StageResult, gate: str) -> bool:
    return any(verdict.gate == gate and not verdict.passed for verdict in point.verdicts)


def _speedup(point: StageResult) -> float:
    return next(verdict.estimate for verdict in point.verdicts if verdict.gate == "speed")
