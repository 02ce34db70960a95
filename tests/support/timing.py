"""Times that are not taken: for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from export.latency import Call, Latency, LatencyComparison


def time_by_size(patch: pytest.MonkeyPatch) -> None:
    """Let a model take as long as its file is large: the real times of tiny models are all alike, and each is taken in
    a process of its own.
    """

    def compared(
        baseline: Path, candidate: Path, texts: Sequence[Call], *, rounds: int, threads: int, **_: Any
    ) -> LatencyComparison:
        times = [file.stat().st_size / 1e6 for file in (baseline, candidate)]
        both = [Latency(((ms, ms),) * rounds, ms, ms) for ms in times]
        return LatencyComparison(*both, tuple(call.tokens for call in texts), threads)

    patch.setattr("compress.measure.compare_latency", compared)
