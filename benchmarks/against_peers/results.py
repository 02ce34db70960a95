"""From answers and times to figures: accuracy beside the teacher's, latencies, and who is faster than whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from against_peers.measure import Times
from against_peers.tools import Model
from against_peers.workloads import END_TO_END
from compress.statistics import Interval, metric_interval, percentile, ratio_interval, tango_interval
from models.task import PairedTest

HALF_STEP = 0.5

ByModel = Mapping[str, Mapping[str, Times]]


def accuracy(
    outputs: npt.NDArray[np.float64], teacher: npt.NDArray[np.float64], targets: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """Return the share of right answers, the paired difference to the teacher, both with 95 % intervals."""
    top, top_teacher = outputs.argmax(axis=1), teacher.argmax(axis=1)
    right, right_teacher = top == targets, top_teacher == targets
    worse, better = int((right_teacher & ~right).sum()), int((right & ~right_teacher).sum())
    own = metric_interval(right.astype(np.float64), paired_test=PairedTest.PROPORTIONS.value)
    difference = tango_interval(len(targets), worse, better, continuity=HALF_STEP)
    return {
        "n": len(targets),
        **own_interval(own),
        "difference": own_interval(difference),
        "teacher_alone_right": worse,
        "model_alone_right": better,
        "same_top_label": float((top == top_teacher).mean()),
        "largest_output_difference": float(np.abs(outputs - teacher).max()),
    }


def own_interval(interval: Interval) -> dict[str, float]:
    """Return an interval as JSON has it."""
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high}


def latencies(times: ByModel, baseline: str) -> dict[str, dict[str, Any]]:
    """Return for every model and workload p50 and p95 in ms, and how many times faster than the baseline it is."""
    return {
        name: {load: _latency(found, load, times[baseline]) for load, found in own.items()}
        for name, own in times.items()
    }


def _latency(times: Times, load: str, baseline: Mapping[str, Times]) -> dict[str, Any]:
    ratio = None
    if load in baseline:
        ratio = own_interval(ratio_interval(baseline[load].medians, times.medians, sides=2))
    tokenise = {"tokenise_p50_ms": percentile(times.tokenising, 50)} if times.tokenising else {}
    return {
        "p50_ms": percentile(times.all, 50),
        "p95_ms": percentile(times.all, 95),
        "ratio": ratio,
        "rounds_ms": times.medians,
        **tokenise,
    }


def control(first: Mapping[str, Times], again: Mapping[str, Times]) -> dict[str, dict[str, float]]:
    """Return by column how many times faster a model is than itself: 1, but for noise."""
    return {
        load: own_interval(ratio_interval(times.medians, again[load].medians, sides=2)) for load, times in first.items()
    }


class Finding(NamedTuple):
    """One of our models beside one of a peer's in one column: above 1 ours is faster."""

    own: str
    peer: str
    load: str
    threads: int
    ratio: Interval

    @property
    def verdict(self) -> str:
        """Return what the interval says: faster, slower, or undecided."""
        if self.ratio.low > 1.0:
            return "faster"
        return "slower" if self.ratio.high < 1.0 else "undecided"


def findings(models: Iterable[Model], times: ByModel, *, threads: int, compared: Sequence[str]) -> list[Finding]:
    """Return how each of `compared` (ours) stands beside every model of a peer in every column that both have."""
    peers = [model.name for model in models if not model.own and model.name in times]
    return [
        Finding(own, peer, load, threads, ratio_interval(times[peer][load].medians, times[own][load].medians, sides=2))
        for own in compared
        if own in times
        for peer in peers
        for load in times[own]
        if load in times[peer] and load != END_TO_END
    ]
