"""The process in which one model is timed: JSON lines in, JSON lines out. Imports nothing but the runtime.

First line in: {"model": path, "threads": n, "calls": path, "warm_up": calls per distinct shape}. The calls are arrays
in an `.npz` file, named by the call's number and the input: `0/input_ids`. It answers {"ready": inputs' names} when
warm. Then every {"pass": true} is answered by {"ns": [time of each call]}, in the order of the numbers. The
end of the input ends it.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import onnxruntime

from export.session import feeds, open_session
from models.errors import CompressError

Feed = Mapping[str, Any]


def _read(path: str) -> list[dict[str, Any]]:
    """Return the named arrays of every call."""
    calls: dict[int, dict[str, Any]] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            number, _, name = key.partition("/")
            calls.setdefault(int(number), {})[name] = arrays[key]
    return [calls[number] for number in sorted(calls)]


def _warm(session: onnxruntime.InferenceSession, prepared: Sequence[Feed], calls: int) -> None:
    """Call every distinct shape, so that no timed call is the first of its own."""
    by_shape = {tuple(array.shape for array in feed.values()): feed for feed in prepared}
    for _ in range(calls):
        for feed in by_shape.values():
            session.run(None, feed)


def _timed(session: onnxruntime.InferenceSession, prepared: Sequence[Feed]) -> list[int]:
    clock, run = time.perf_counter_ns, session.run
    times = []
    for feed in prepared:
        start = clock()
        run(None, feed)
        times.append(clock() - start)
    return times


def serve(incoming: TextIO, outgoing: TextIO) -> None:
    """Answer the requests of one measurement."""
    order = json.loads(incoming.readline())
    session = open_session(Path(order["model"]), threads=order["threads"])
    prepared = [feeds(session, arrays) for arrays in _read(order["calls"])]
    _warm(session, prepared, order["warm_up"])
    # A collection in the middle of a call would be counted as the model's time.
    gc.disable()
    _answer(outgoing, {"ready": [port.name for port in session.get_inputs()]})
    for line in incoming:
        if json.loads(line).get("pass"):
            _answer(outgoing, {"ns": _timed(session, prepared)})


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
