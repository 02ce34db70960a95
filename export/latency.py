"""How fast a file is in ONNX Runtime on this machine: fresh processes, batch 1, two models in interleaved rounds.

Every model runs in a process of its own that does nothing else. A round is the passes A B B A over the same rows, so
that a drift of the machine falls on both models alike (duet benchmarking, Bulej et al. 2020), and rounds are spread
over several pairs of processes, because the layout of memory makes one launch faster than another.

A model is a file, and a call what it answers; or it is a bundle that writes, and a call is a whole text.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from export.line_process import Ask, EndedError, line_process
from models.errors import BadFile, BadInput
from models.progress import Progress, silent

Array = NDArray[Any]
WARM_UP_CALLS: Final = 5
ROUNDS_PER_LAUNCH: Final = 4
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from export.latency_worker import main; main()"


class Call(NamedTuple):
    """What one call is given: named arrays with a batch of one, which make so many tokens."""

    tokens: int
    arrays: Mapping[str, Array]


@final
@dataclass(frozen=True, slots=True)
class Latency:
    """Time of one call at batch 1, in ms: `rounds` holds the median of each pass of each round, or of what writes the
    mean, by which texts a second are counted; `p50_ms` and `p95_ms` are over all calls.
    """

    rounds: tuple[tuple[float, ...], ...]
    p50_ms: float
    p95_ms: float


@final
@dataclass(frozen=True, slots=True)
class LatencyComparison:
    """Two models over the same rows, whose `lengths` are in tokens and in the order they were run.

    `own_lengths` are those of a baseline that reads the rows its own way; None where it reads the same.
    """

    baseline: Latency
    candidate: Latency
    lengths: tuple[int, ...]
    threads: int
    own_lengths: tuple[int, ...] | None = None

    @property
    def baseline_lengths(self) -> tuple[int, ...]:
        """Return the lengths of the rows in the baseline's tokens."""
        return self.lengths if self.own_lengths is None else self.own_lengths

    @property
    def speedup(self) -> float:
        """Return how many times faster the candidate's median is."""
        return self.baseline.p50_ms / self.candidate.p50_ms


@final
@dataclass(frozen=True, slots=True)
class Profile:
    """What a model costs in a process of its own: the time to load it, the bytes that the process held before and at
    most (None where the system does not say), and for each call the times of all passes in ms.
    """

    load_ms: float
    before_bytes: int | None
    peak_bytes: int | None
    times_ms: tuple[tuple[float, ...], ...]


def compare(
    baseline: Path,
    candidate: Path,
    calls: Sequence[Call],
    *,
    baseline_calls: Sequence[Call] | None = None,
    threads: int = 1,
    rounds: int = 8,
    progress: Progress = silent,
) -> LatencyComparison:
    """Return the latency of both models on these calls, one after another.

    `baseline_calls` are the same rows for a baseline that reads them its own way.

    Raises:
        BadInput: no call, an empty one, not as many for both, or less than one round or thread.
        BadFile: a model does not load or its process ended.
    """
    theirs = calls if baseline_calls is None else baseline_calls
    for some in (calls, theirs):
        _check(some, threads=threads, rounds=rounds)
    if len(theirs) != len(calls):
        raise BadInput(f"{len(theirs)} calls for the baseline and {len(calls)} for the candidate cannot be compared")
    passes = _rounds((baseline, candidate), (theirs, calls), threads=threads, rounds=rounds, progress=progress)
    return LatencyComparison(
        baseline=_latency(passes[0], baseline),
        candidate=_latency(passes[1], candidate),
        lengths=tuple(call.tokens for call in calls),
        threads=threads,
        own_lengths=None if baseline_calls is None else tuple(call.tokens for call in theirs),
    )


def measure(
    model: Path,
    calls: Sequence[Call],
    *,
    threads: int = 1,
    rounds: int = 8,
    progress: Progress = silent,
) -> Latency:
    """Return the latency of one model alone; arguments and errors as in `compare`."""
    _check(calls, threads=threads, rounds=rounds)
    return _latency(_rounds((model,), (calls,), threads=threads, rounds=rounds, progress=progress)[0], model)


def profile(
    model: Path, calls: Sequence[Call], *, threads: int = 1, passes: int = 20, progress: Progress = silent
) -> Profile:
    """Return what one model alone costs on these calls; arguments and errors as in `compare`."""
    _check(calls, threads=threads, rounds=passes)
    report = progress("Timing")
    times = []
    with _worker(model, calls, threads=threads) as worker:
        for done in range(1, passes + 1):
            times.append(worker.one_pass())
            report(done, passes)
        cost = worker.ask({"cost": True})
    by_call = np.asarray(times, dtype=np.float64).T / 1e6
    return Profile(
        load_ms=cost["load_ns"] / 1e6,
        before_bytes=cost["before"],
        peak_bytes=cost["peak"],
        times_ms=tuple(tuple(float(ms) for ms in row) for row in by_call),
    )


def _check(calls: Sequence[Call], *, threads: int, rounds: int) -> None:
    if not calls or min(call.tokens for call in calls) == 0:
        raise BadInput("latency needs at least one call, and no empty ones")
    if threads < 1 or rounds < 1:
        raise BadInput(f"{rounds} rounds with {threads} threads", fix="Give at least one of each.")


def _rounds(
    models: tuple[Path, ...],
    calls: tuple[Sequence[Call], ...],
    *,
    threads: int,
    rounds: int,
    progress: Progress,
) -> list[list[list[list[int]]]]:
    """Return for each model, per round, the nanoseconds of each of its passes over its own calls."""
    times: list[list[list[list[int]]]] = [[] for _ in models]
    report = progress("Timing")
    done = 0
    while done < rounds:
        with ExitStack() as stack:
            workers = [
                stack.enter_context(_worker(model, own, threads=threads))
                for model, own in zip(models, calls, strict=True)
            ]
            for _ in range(min(ROUNDS_PER_LAUNCH, rounds - done)):
                # Which model goes first changes with the round; a model alone makes one pass after another.
                order = list(range(len(models))) if done % 2 == 0 else list(range(len(models)))[::-1]
                passes: list[list[list[int]]] = [[] for _ in models]
                for index in (*order, *order[::-1]):
                    passes[index].append(workers[index].one_pass())
                for model_times, model_passes in zip(times, passes, strict=True):
                    model_times.append(model_passes)
                done += 1
                report(done, rounds)
    return times


def _latency(rounds: list[list[list[int]]], model: Path) -> Latency:
    times = np.asarray(rounds, dtype=np.float64) / 1e6  # (rounds, passes, calls), ms
    figures = times.mean(axis=2) if model.is_dir() else np.median(times, axis=2)
    return Latency(
        rounds=tuple(tuple(float(value) for value in row) for row in figures),
        p50_ms=float(np.median(times)),
        p95_ms=float(np.quantile(times, 0.95)),
    )


@final
class _Worker:
    """A running process that times one model."""

    def __init__(self, model: Path, ask: Ask) -> None:
        self.model = model
        self._ask = ask

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            BadFile: the process ended; the message is what it wrote to standard error.
        """
        try:
            return self._ask(request)
        except EndedError as ended:
            said = ended.said.strip().splitlines() or ["it said nothing"]
            what = f"the process that timed it ended with code {ended.code}: {said[-1]}"
            raise BadFile(what, where=str(self.model)) from None

    def one_pass(self) -> list[int]:
        """Return the nanoseconds of each call."""
        times: list[int] = self.ask({"pass": True})["ns"]
        return times


def _stored(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array as it is written for the worker: texts as characters, so that nothing has to be unpickled."""
    return array.astype(str) if array.dtype == object else array


@contextmanager
def _worker(model: Path, calls: Sequence[Call], *, threads: int) -> Iterator[_Worker]:
    """Yield a warm process for `model`; it is ended on the way out."""
    # Isolated mode, and our own search path: a folder with the user's own `export.py` must not be taken for ours.
    command = [sys.executable, "-I", "-c", _START, json.dumps(sys.path)]
    with tempfile.TemporaryDirectory() as folder, line_process(command) as ask:
        arrays = Path(folder) / "calls.npz"
        named: Any = {
            f"{at}/{name}": _stored(one) for at, call in enumerate(calls) for name, one in call.arrays.items()
        }
        np.savez(arrays, **named)
        worker = _Worker(model, ask)
        warm_up = 1 if model.is_dir() else WARM_UP_CALLS  # a text is many calls
        order = {"model": str(model.resolve()), "threads": threads, "warm_up": warm_up, "calls": str(arrays)}
        worker.ask(order)
        yield worker
