"""The process in which one model runs: JSON lines in, JSON lines out. Needs numpy and one runtime, nothing of ours.

First line in: {"runtime": "onnxruntime" or "openvino", "model": path, "threads": n}, answered by the milliseconds of
the import and of the load. Then requests of {"do": NAME, ...}, each answered by one line:

- "keep": `name`, `calls`, a list of {"ids": rows, "kinds": rows} of equally long rows: what "time" will run.
- "read": `name`, `texts`, a list of [text] or [text, pair], and `tokenizer`, a file: texts that "time" will tokenise
  and run one by one. Answered by their token numbers.
- "time": `name`, and how many calls come first untimed (`settle`). Answered by the nanoseconds of each call, and of its
  tokenisation where there is one.
- "answer": `calls` as in "keep". Answered by the rows of outputs.

Every answer holds the most memory that the process has had so far, in MB (10^6 bytes). The end of the input ends it.
Options of the runtimes are their defaults, apart from the number of threads.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

Feed = dict[str, Any]
Run = Callable[[Feed], Any]
WARM_UP_CALLS = 5
ERRORS_ONLY = 3


def open_onnxruntime(model: str, threads: int) -> tuple[Run, list[str]]:
    """Return a function from inputs to the first output, and the names of the inputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = ERRORS_ONLY
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda feed: session.run(None, feed)[0], [port.name for port in session.get_inputs()]


def open_openvino(model: str, threads: int) -> tuple[Run, list[str]]:
    """Return a function from inputs to the first output, and the names of the inputs."""
    import openvino

    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads})
    request = compiled.create_infer_request()
    output = compiled.output(0)
    names = [port.get_any_name() for port in compiled.inputs]
    # Without copies, as ONNX Runtime takes arrays.
    return lambda feed: request.infer(feed, share_inputs=True, share_outputs=True)[output], names


RUNTIMES: Mapping[str, Callable[[str, int], tuple[Run, list[str]]]] = {
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
}


class Work:
    """A model that is open, and what it was given to run."""

    def __init__(self, run: Run, inputs: list[str]) -> None:
        self.run = run
        self.inputs = inputs
        self.kept: dict[str, list[Feed]] = {}
        self.texts: dict[str, tuple[Any, list[list[str]]]] = {}

    def keep(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Prepare calls, and run each shape of them so that no timed call is the first of its kind."""
        feeds = [self._feed(call["ids"], call["kinds"]) for call in request["calls"]]
        self.kept[request["name"]] = feeds
        for _ in range(WARM_UP_CALLS):
            for feed in {feed["input_ids"].shape: feed for feed in feeds}.values():
                self.run(feed)
        return {}

    def read(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Open a tokenizer and keep texts for it."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(request["tokenizer"])
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.texts[request["name"]] = (tokenizer, request["texts"])
        encodings = [tokenizer.encode(*text) for text in request["texts"]]
        for encoding in encodings:
            self.run(self._feed([encoding.ids], [encoding.type_ids]))
        return {"ids": [encoding.ids for encoding in encodings]}

    def time(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run what was kept under a name, each call once."""
        clock, run, name = time.perf_counter_ns, self.run, request["name"]
        if name in self.texts:
            return self._time_texts(name, request["settle"])
        feeds = self.kept[name]
        for feed in feeds[: request["settle"]]:
            run(feed)
        times = []
        for feed in feeds:
            start = clock()
            run(feed)
            times.append(clock() - start)
        return {"ns": times}

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run calls once and give back what comes out."""
        rows: list[list[float]] = []
        for call in request["calls"]:
            rows += np.asarray(self.run(self._feed(call["ids"], call["kinds"])), dtype=np.float64).tolist()
        return {"rows": rows}

    def _time_texts(self, name: str, settle: int) -> dict[str, Any]:
        clock, (tokenizer, texts) = time.perf_counter_ns, self.texts[name]
        whole, tokenising = [], []
        for number, text in enumerate([*texts[:settle], *texts]):
            start = clock()
            encoding = tokenizer.encode(*text)
            middle = clock()
            self.run(self._feed([encoding.ids], [encoding.type_ids]))
            end = clock()
            if number >= settle:
                whole.append(end - start)
                tokenising.append(middle - start)
        return {"ns": whole, "tokenise_ns": tokenising}

    def _feed(self, ids: list[list[int]], kinds: list[list[int]]) -> Feed:
        rows = np.asarray(ids, dtype=np.int64)
        known = {
            "input_ids": rows,
            "attention_mask": np.ones_like(rows),
            "token_type_ids": np.asarray(kinds, dtype=np.int64),
        }
        return {name: known[name] for name in self.inputs}


def peak_mb() -> float:
    """Return the most memory this process has had resident, in MB, what it shares included."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024 / 1e6
    import resource

    # Without /proc this is macOS, where the figure is in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def say(outgoing: TextIO, value: Mapping[str, Any]) -> None:
    """Write one answer."""
    outgoing.write(json.dumps({**value, "peak_mb": peak_mb()}) + "\n")
    outgoing.flush()


def main() -> None:
    """Serve standard input and output."""
    # What a library prints must not come between the answers.
    outgoing = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    order = json.loads(sys.stdin.readline())
    start = time.perf_counter()
    __import__(order["runtime"])
    imported, before = time.perf_counter(), peak_mb()
    run, inputs = RUNTIMES[order["runtime"]](order["model"], order["threads"])
    loaded = time.perf_counter()
    work = Work(run, inputs)
    # A collection in the middle of a call would be counted as the model's time.
    gc.disable()
    say(outgoing, {"import_ms": 1e3 * (imported - start), "load_ms": 1e3 * (loaded - imported), "runtime_mb": before})
    for line in sys.stdin:
        request = json.loads(line)
        say(outgoing, getattr(work, request["do"])(request))


if __name__ == "__main__":
    main()
