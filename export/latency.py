"""How fast a file is in ONNX Runtime on this machine: fresh processes, batch 1, two models in interleaved rounds.

Every model runs in a process of its own that does nothing else. A round is the passes A B B A over the same texts, so
that a drift of the machine falls on both models alike (duet benchmarking, Bulej et al. 2020), and rounds are spread
over several pairs of processes, because the layout of memory makes one launch faster than another.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from export.line_process import Ask, EndedError, line_process
from models.errors import BadFile, BadInput
from models.progress import Progress, silent

WARM_UP_CALLS: Final = 5
ROUNDS_PER_LAUNCH: Final = 4
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from export.latency_worker import main; main()"


@final
@dataclass(frozen=True, slots=True)
class Latency:
    """Time of one call at batch 1, in ms: `rounds` holds the median of each pass of each round, and `p50_ms` and
    `p95_ms` are over all calls.
    """

    rounds: tuple[tuple[float, ...], ...]
    p50_ms: float
    p95_ms: float


@final
@dataclass(frozen=True, slots=True)
class LatencyComparison:
    """Two models over the same texts, whose `lengths` are in tokens and in the order they were run.

    `own_lengths` are those of a baseline that reads the texts with another tokenizer; None where it is the same.
    """

    baseline: Latency
    candidate: Latency
    lengths: tuple[int, ...]
    threads: int
    own_lengths: tuple[int, ...] | None = None

    @property
    def baseline_lengths(self) -> tuple[int, ...]:
        """Return the lengths of the texts in the baseline's tokens."""
        return self.lengths if self.own_lengths is None else self.own_lengths

    @property
    def speedup(self) -> float:
        """Return how many times faster the candidate's median is."""
        return self.baseline.p50_ms / self.candidate.p50_ms


def compare(
    baseline: Path,
    candidate: Path,
    sequences: Sequence[NDArray[np.int64]],
    *,
    baseline_sequences: Sequence[NDArray[np.int64]] | None = None,
    threads: int = 1,
    rounds: int = 8,
    progress: Progress = silent,
) -> LatencyComparison:
    """Return the latency of both models on `sequences` of token ids, each (time,).

    `baseline_sequences` are the same texts for a baseline that has a tokenizer of its own.

    Raises:
        BadInput: no sequence, an empty one, not one of each for a text, or less than one round or thread.
        BadFile: a model does not load or its process ended.
    """
    texts = _checked(sequences, threads=threads, rounds=rounds)
    theirs = texts
    if baseline_sequences is not None:
        theirs = _checked(baseline_sequences, threads=threads, rounds=rounds)
    if len(theirs) != len(texts):
        raise BadInput(f"{len(theirs)} texts for the baseline and {len(texts)} for the candidate cannot be compared")
    passes = _rounds((baseline, candidate), (theirs, texts), threads=threads, rounds=rounds, progress=progress)
    return LatencyComparison(
        baseline=_latency(passes[0]),
        candidate=_latency(passes[1]),
        lengths=tuple(len(text) for text in texts),
        threads=threads,
        own_lengths=None if baseline_sequences is None else tuple(len(text) for text in theirs),
    )


def measure(
    model: Path,
    sequences: Sequence[NDArray[np.int64]],
    *,
    threads: int = 1,
    rounds: int = 8,
    progress: Progress = silent,
) -> Latency:
    """Return the latency of one model alone; arguments and errors as in `compare`."""
    texts = _checked(sequences, threads=threads, rounds=rounds)
    return _latency(_rounds((model,), (texts,), threads=threads, rounds=rounds, progress=progress)[0])


def _checked(sequences: Sequence[NDArray[np.int64]], *, threads: int, rounds: int) -> list[list[int]]:
    if not sequences or min(len(text) for text in sequences) == 0:
        raise BadInput("latency needs at least one text, and no empty ones")
    if threads < 1 or rounds < 1:
        raise BadInput(f"{rounds} rounds with {threads} threads", fix="Give at least one of each.")
    return [[int(token) for token in text] for text in sequences]


def _rounds(
    models: tuple[Path, ...],
    texts: tuple[list[list[int]], ...],
    *,
    threads: int,
    rounds: int,
    progress: Progress,
) -> list[list[list[list[int]]]]:
    """Return for each model, per round, the nanoseconds of the calls of each of its passes over its own texts."""
    times: list[list[list[list[int]]]] = [[] for _ in models]
    report = progress("Timing")
    done = 0
    while done < rounds:
        with ExitStack() as stack:
            workers = [
                stack.enter_context(_worker(model, own, threads=threads))
                for model, own in zip(models, texts, strict=True)
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


def _latency(rounds: list[list[list[int]]]) -> Latency:
    calls = np.asarray(rounds, dtype=np.float64) / 1e6  # (rounds, passes, texts), ms
    medians = np.median(calls, axis=2)
    return Latency(
        rounds=tuple(tuple(float(value) for value in row) for row in medians),
        p50_ms=float(np.median(calls)),
        p95_ms=float(np.quantile(calls, 0.95)),
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
        """Return the nanoseconds of one call per text."""
        times: list[int] = self.ask({"pass": True})["ns"]
        return times


@contextmanager
def _worker(model: Path, texts: list[list[int]], *, threads: int) -> Iterator[_Worker]:
    """Yield a warm process for `model`; it is ended on the way out."""
    # Isolated mode, and our own search path: a folder with the user's own `export.py` must not be taken for ours.
    with line_process([sys.executable, "-I", "-c", _START, json.dumps(sys.path)]) as ask:
        worker = _Worker(model, ask)
        order = {"model": str(model.resolve()), "threads": threads, "warm_up": WARM_UP_CALLS, "sequences": texts}
        worker.ask(order)
        yield worker
