"""Running models in processes of their own: answers, loads, and times in interleaved rounds.

All processes of one comparison are alive at once and only one works at a time. A round runs every model forwards and
then backwards, so that a drift of the machine falls on all alike; which model comes first changes with the round, and
rounds are spread over several launches, because the layout of memory makes one launch faster than another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, final

import numpy as np
import numpy.typing as npt

from against_peers.tools import HERE, ONNXRUNTIME, Failed, Failure, Model, last_line
from export.line_process import Ask, EndedError, line_process

ROUNDS_PER_LAUNCH: Final = 4
QUIET_S: Final = 0.2
ROWS_AT_ONCE: Final = 500
Call = Mapping[str, list[list[int]]]


@final
@dataclass(frozen=True, slots=True)
class Workload:
    """What a pass runs: calls of token numbers, or texts with the tokenizer file that reads them as `calls`."""

    calls: Sequence[Call] = ()
    texts: Sequence[Sequence[str]] = ()
    tokenizer: str = ""

    @property
    def settle(self) -> int:
        """Return how many calls of a pass come first untimed: other models' threads and caches are still about."""
        return max(1, len(self.calls) // 10)


@final
@dataclass(slots=True)
class Times:
    """Milliseconds of the calls, by round and pass."""

    rounds: list[list[list[float]]] = field(default_factory=list)
    tokenising: list[float] = field(default_factory=list)

    @property
    def medians(self) -> list[list[float]]:
        """Return the median of each pass of each round."""
        return [[float(np.median(calls)) for calls in passes] for passes in self.rounds]

    @property
    def all(self) -> npt.NDArray[np.float64]:
        """Return every call."""
        return np.asarray([call for passes in self.rounds for calls in passes for call in calls], dtype=np.float64)


@final
class Worker:
    """A running process with one model."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            Failed: the process ended; the reason is what it said last.
        """
        try:
            return self._ask(request)
        except EndedError as ended:
            raise Failed("run", f"ended with code {ended.code}: {last_line(ended.said)}") from None


@contextmanager
def worker(model: Model, python: str, *, threads: int) -> Iterator[tuple[Worker, dict[str, Any]]]:
    """Yield a process that has loaded the model, and what loading took; it is ended on the way out.

    `python` runs models for ONNX Runtime; others are run by the Python that built them.

    Raises:
        Failed: the model does not load.
    """
    command = python if model.runtime == ONNXRUNTIME else model.python
    with line_process([command, "-I", str(HERE / "worker.py")]) as ask:
        one = Worker(ask)
        order = {"runtime": model.runtime, "model": str(model.file.resolve()), "threads": threads}
        yield one, one.ask(order)


def answers(model: Model, python: str, rows: Sequence[Call]) -> tuple[npt.NDArray[np.float64], dict[str, float]]:
    """Return the outputs of a model for rows run one at a time on one thread, and the most memory that took in MB.

    Raises:
        Failed: the model does not load or run, or gives a value that is not finite.
    """
    with worker(model, python, threads=1) as (process, opened):
        found: list[list[float]] = []
        peak = opened["peak_mb"]
        for start in range(0, len(rows), ROWS_AT_ONCE):
            answer = process.ask({"do": "answer", "calls": rows[start : start + ROWS_AT_ONCE]})
            found += answer["rows"]
            peak = answer["peak_mb"]
    outputs = np.asarray(found, dtype=np.float64)
    if not np.isfinite(outputs).all():
        raise Failed("run", "it gives values that are not finite")
    return outputs, {"runtime": opened["runtime_mb"], "loaded": opened["peak_mb"], "peak": peak}


def loads(
    models: Sequence[Model], python: str, *, launches: int
) -> tuple[dict[str, list[dict[str, float]]], list[Failure]]:
    """Return for every model the milliseconds of import and load of fresh processes, one model after the other.

    Besides, the models that did not load.
    """
    found: dict[str, list[dict[str, float]]] = {model.name: [] for model in models}
    failures: dict[str, Failure] = {}
    for _ in range(launches):
        for model in models:
            with _noting(model.name, failures), worker(model, python, threads=1) as (_, opened):
                found[model.name].append({key: opened[key] for key in ("import_ms", "load_ms")})
    return found, list(failures.values())


def timings(
    models: Sequence[Model],
    workloads: Callable[[Model], Mapping[str, Workload]],
    python: str,
    *,
    threads: int,
    rounds: int,
    tell: Callable[[str], None],
) -> tuple[dict[str, dict[str, Times]], list[Failure]]:
    """Return the times of every model by workload, and the models that stopped working, which have none."""
    given = {model.name: workloads(model) for model in models}
    found = {model.name: {name: Times() for name in given[model.name]} for model in models}
    failures: dict[str, Failure] = {}
    done = 0
    while done < rounds:
        count = min(ROUNDS_PER_LAUNCH, rounds - done)
        with ExitStack() as stack:
            running: dict[str, Worker] = {}
            for model in models:
                with _noting(model.name, failures):
                    if model.name not in failures:
                        running[model.name] = stack.enter_context(worker(model, python, threads=threads))[0]
                        prepare(running[model.name], given[model.name])
            for number in range(done, done + count):
                tell(f"{threads} threads, round {number + 1} of {rounds}")
                names = [name for name in running if name not in failures]
                _round(names if number % 2 == 0 else names[::-1], running, given, found, failures)
        done += count
    return {name: times for name, times in found.items() if name not in failures}, list(failures.values())


def prepare(process: Worker, workloads: Mapping[str, Workload]) -> None:
    """Hand a process what it is to run.

    Raises:
        Failed: it cannot run it.
    """
    for name, load in workloads.items():
        if load.texts:
            answer = process.ask({"do": "read", "name": name, "texts": load.texts, "tokenizer": load.tokenizer})
            if answer["ids"] != [call["ids"][0] for call in load.calls]:
                raise Failed("run", "its tokenizer reads the texts differently")
        else:
            process.ask({"do": "keep", "name": name, "calls": load.calls})


def _round(
    names: list[str],
    running: Mapping[str, Worker],
    given: Mapping[str, Mapping[str, Workload]],
    found: Mapping[str, Mapping[str, Times]],
    failures: dict[str, Failure],
) -> None:
    """Run every workload forwards and backwards through the models and add the times."""
    for load in dict.fromkeys(load for name in names for load in given[name]):
        passes: dict[str, list[list[float]]] = {name: [] for name in names if load in given[name]}
        for name in [*passes, *reversed(passes)]:
            if name in failures:
                continue
            with _noting(name, failures):
                # The threads of the process before spin for a while, on cores that this one is timed on.
                time.sleep(QUIET_S)
                answer = running[name].ask({"do": "time", "name": load, "settle": given[name][load].settle})
                passes[name].append([ns / 1e6 for ns in answer["ns"]])
                found[name][load].tokenising += [ns / 1e6 for ns in answer.get("tokenise_ns", ())]
        for name, calls in passes.items():
            found[name][load].rounds.append(calls)


@contextmanager
def _noting(name: str, failures: dict[str, Failure]) -> Iterator[None]:
    """Keep a failure as a result instead of raising it."""
    try:
        yield
    except Failed as failed:
        failures[name] = Failure(name, failed.step, failed.reason)
