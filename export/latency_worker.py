"""The process in which one model is timed: JSON lines in, JSON lines out. Imports nothing but the runtime.

First line in: {"model": path, "threads": n, "calls": path, "warm_up": calls per distinct shape}. The calls are arrays
in an `.npz` file, named by the call's number and the input: `0/input_ids`. It answers {"ready": inputs' names} when
warm. Then every {"pass": true} is answered by {"ns": [time of each call]}, in the order of the numbers, and {"cost":
true} by {"load_ns": time of loading, "before": bytes, "peak": bytes}: what the process held before it loaded the model,
and the most until now (null where the system does not say). The end of the input ends it. A model that is a directory
is a bundle that writes, and a call is a text that it writes.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from export.session import feeds, open_session
from export.text.ports import TEXT
from models.errors import CompressError

Feed = Mapping[str, Any]
Work = Callable[[Feed], object]  # one call


def _read(path: str) -> list[dict[str, Any]]:
    """Return the named arrays of every call."""
    calls: dict[int, dict[str, Any]] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            number, _, name = key.partition("/")
            calls.setdefault(int(number), {})[name] = arrays[key]
    return [calls[number] for number in sorted(calls)]


def _loaded(model: Path, threads: int, *, texts: bool) -> tuple[Work, Callable[[Feed], Feed], list[str]]:
    """Return what makes a call, what prepares its arrays, and the names of the inputs."""
    if model.is_dir():
        from export.timed_writing import INPUT, text_writer  # what only writes is loaded by what writes

        return text_writer(model, threads=threads), dict, [INPUT]
    session = open_session(model, threads=threads, texts=texts)
    return partial(session.run, None), partial(feeds, session), [port.name for port in session.get_inputs()]


def _warm(work: Work, prepared: Sequence[Feed], calls: int) -> None:
    """Call every distinct shape, so that no timed call is the first of its own."""
    by_shape = {tuple(array.shape for array in feed.values()): feed for feed in prepared}
    for _ in range(calls):
        for feed in by_shape.values():
            work(feed)


def _timed(work: Work, prepared: Sequence[Feed]) -> list[int]:
    clock = time.perf_counter_ns
    times = []
    for feed in prepared:
        start = clock()
        work(feed)
        times.append(clock() - start)
    return times


def serve(incoming: TextIO, outgoing: TextIO) -> None:
    """Answer the requests of one measurement."""
    order = json.loads(incoming.readline())
    calls = _read(order["calls"])
    before, start = _peak_bytes(), time.perf_counter_ns()
    work, prepare, inputs = _loaded(Path(order["model"]), order["threads"], texts=TEXT in calls[0])
    loaded = {"load_ns": time.perf_counter_ns() - start, "before": before}
    prepared = [prepare(arrays) for arrays in calls]
    _warm(work, prepared, order["warm_up"])
    # A collection in the middle of a call would be counted as the model's time.
    gc.disable()
    _answer(outgoing, {"ready": inputs})
    for line in incoming:
        asked = json.loads(line)
        if asked.get("pass"):
            _answer(outgoing, {"ns": _timed(work, prepared)})
        if asked.get("cost"):
            _answer(outgoing, {**loaded, "peak": _peak_bytes()})


def _peak_bytes() -> int | None:
    """Return the most memory that this process held, or None where the system does not say.

    Of Linux the figure of `getrusage` is not this process's alone: it has what the one held that started it.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next((line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:")), "")
        return int(line.split()[1]) * 1024 if line else None
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def _answer(outgoing: TextIO, value: Mapping[str, Any]) -> None:
    outgoing.write(json.dumps(value) + "\n")
    outgoing.flush()


def main() -> None:
    """Serve standard input and output; a known error goes to standard error without a traceback."""
    try:
        serve(sys.stdin, sys.stdout)
    except CompressError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from error
