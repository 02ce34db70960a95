"""One comparison from beginning to end: build, answer, load, time, judge."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import numpy.typing as npt

from against_peers.environments import build, interpreter
from against_peers.measure import Times, answers, loads, timings
from against_peers.results import Finding, accuracy, control, findings, latencies
from against_peers.tools import ONNXRUNTIME, OWN, Failed, Failure, Model, Tool
from against_peers.workloads import TEXTS, Reader, Shape, single, spread_rows, workloads
from export.bundle import Bundle
from models.checkpoint import read_shape
from models.data import Table
from models.errors import BadInput
from models.labels import class_targets
from models.shape import ModelShape
from models.tokenizing import Tokenizing

TEACHER: Final = "ours fp32"
BASELINE: Final = "onnxruntime fp32"
AGAIN: Final = "ours fp32 again"
LAUNCHES: Final = 5


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """What is compared, and how long. `bundles` are names and folders; `calibration` counts texts of `lengths`."""

    checkpoint: Path
    data: Table
    lengths: Table
    bundles: Sequence[tuple[str, Path]]
    shapes: Sequence[Shape]
    threads: Sequence[int]
    rounds: int
    calibration: int
    venvs: Path
    tell: Callable[[str], None]


@final
@dataclass(slots=True)
class Contest:
    """What is compared so far, what failed, and what each model was found to do."""

    settings: Settings
    shape: ModelShape
    models: list[Model] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    outputs: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    memory: dict[str, dict[str, float]] = field(default_factory=dict)

    def drop(self, failures: Iterable[Failure]) -> None:
        """Leave failed models out from here on, and keep why."""
        self.failures += failures
        failed = {failure.name for failure in failures}
        self.models = [model for model in self.models if model.name not in failed]

    def need(self, name: str) -> None:
        """Raise BadInput, with every failure so far, unless the model of this name is still there."""
        if name not in {model.name for model in self.models}:
            said = "; ".join(f"{failure.name}: {failure.step}: {failure.reason}" for failure in self.failures)
            raise BadInput(f"without {name!r} there is nothing to compare with ({said})", where="peers")

    def reader(self, model: Model) -> Reader:
        """Return a model's way from text to numbers."""
        bundled = model.tokenizing != self.settings.checkpoint
        shape = Bundle.open(model.tokenizing).shape if bundled else self.shape
        return Reader(Tokenizing.load(model.tokenizing), model.tokenizing, shape.usable_positions)

    @property
    def teacher_reader(self) -> Reader:
        """Return the teacher's way from text to numbers."""
        folder = self.settings.checkpoint
        return Reader(Tokenizing.load(folder), folder, self.shape.usable_positions)

    @property
    def compared(self) -> list[str]:
        """Return the names of our compressed models."""
        return [model.name for model in self.models if model.own and model.name not in (TEACHER, AGAIN)]


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """`models` are as the JSON file has them; `control` holds ratios of the teacher to itself by threads and column."""

    baseline: str
    models: list[dict[str, Any]]
    findings: list[Finding]
    control: dict[int, dict[str, dict[str, float]]]
    failures: list[Failure]
    compared: list[str]


def compare(settings: Settings, tools: Sequence[Tool], out: Path) -> Outcome:
    """Return what came of the whole comparison; what is built stays in `out`.

    Raises:
        BadInput: `out` is not empty, a bundle has other labels than the teacher or a name that is taken, or our own
            teacher could not be built or run.
    """
    if any(out.iterdir()):
        raise BadInput("the directory is not empty", where=str(out), fix="Choose another --out.")
    contest = Contest(settings, read_shape(settings.checkpoint))
    built(contest, tools, out)
    answered(contest)
    contest.need(TEACHER)
    # The control answers as itself, but is loaded and timed as a model of its own.
    contest.models += [replace(model, name=AGAIN) for model in contest.models if model.name == TEACHER]
    contest.outputs[AGAIN], contest.memory[AGAIN] = contest.outputs[TEACHER], contest.memory[TEACHER]
    settings.tell("load times")
    load, failures = loads(contest.models, sys.executable, launches=LAUNCHES)
    contest.drop(failures)
    times = timed(contest)
    contest.need(TEACHER)
    contest.need(AGAIN)
    return judged(contest, times, load)


def built(contest: Contest, tools: Sequence[Tool], out: Path) -> None:
    """Build with every tool and take the bundles in; failures are kept."""
    settings = contest.settings
    texts = out / "calibration.json"
    rows = range(min(settings.calibration, len(settings.lengths)))
    encodings = contest.teacher_reader.read(settings.lengths, rows)
    calls = [{"ids": encoding.ids, "kinds": encoding.token_type_ids} for encoding in encodings]
    texts.write_text(json.dumps(calls), encoding="utf-8")
    for tool in tools:
        try:
            settings.tell(f"{tool.name}: install")
            python = interpreter(tool, settings.venvs)
            settings.tell(f"{tool.name}: build")
            contest.models += build(tool, python, settings.checkpoint, texts, out / tool.name)
        except Failed as failed:
            contest.failures.append(Failure(tool.name, failed.step, failed.reason))
    for name, folder in settings.bundles:
        bundle = Bundle.open(folder)
        if bundle.shape.labels != contest.shape.labels:
            raise BadInput("its labels are not the teacher's", where=str(folder))
        if name in {AGAIN, *(model.name for model in contest.models)}:
            raise BadInput(f"the name {name!r} is taken", where=str(folder), fix="Choose another.")
        contest.models.append(Model(name, OWN, bundle.model, bundle.directory, ONNXRUNTIME, sys.executable))


def answered(contest: Contest) -> None:
    """Let every model answer the labelled data; those that cannot are dropped."""
    settings = contest.settings
    rows = range(len(settings.data))
    failures = []
    for model in contest.models:
        settings.tell(f"{model.name}: answer {len(rows)} texts")
        calls = [single(encoding) for encoding in contest.reader(model).read(settings.data, rows)]
        try:
            outputs, memory = answers(model, sys.executable, calls)
            if outputs.shape != (len(rows), len(contest.shape.labels)):
                raise Failed("run", f"its outputs have the shape {outputs.shape}")
            contest.outputs[model.name], contest.memory[model.name] = outputs, memory
        except Failed as failed:
            failures.append(Failure(model.name, failed.step, failed.reason))
    contest.drop(failures)


def timed(contest: Contest) -> dict[int, dict[str, dict[str, Times]]]:
    """Return the times by threads; models that stop working are dropped."""
    settings = contest.settings
    every = contest.teacher_reader.read(settings.lengths, range(len(settings.lengths)))
    lengths = [len(encoding.ids) for encoding in every]
    rows = spread_rows(lengths, TEXTS)
    found = {}
    for threads in settings.threads:
        found[threads], failures = timings(
            contest.models,
            lambda model: workloads(contest.reader(model), settings.lengths, rows, settings.shapes),
            sys.executable,
            threads=threads,
            rounds=settings.rounds,
            tell=settings.tell,
        )
        contest.drop(failures)
    return found


def judged(
    contest: Contest, times: dict[int, dict[str, dict[str, Times]]], load: dict[str, list[dict[str, float]]]
) -> Outcome:
    """Return everything that was found out."""
    names = [model.name for model in contest.models]
    baseline = BASELINE if BASELINE in names else TEACHER
    targets = np.asarray(class_targets(contest.settings.data, contest.shape.labels), dtype=np.int64)
    latency = {threads: latencies(found, baseline) for threads, found in times.items()}
    models = [
        {
            "name": model.name,
            "tool": model.tool,
            "runtime": model.runtime,
            "bytes": model.bytes,
            "build_seconds": model.build_seconds,
            "accuracy": accuracy(contest.outputs[model.name], contest.outputs[TEACHER], targets),
            "memory_mb": contest.memory[model.name],
            "load_ms": {
                "p50": float(np.median([one["load_ms"] for one in load[model.name]])),
                "import_p50": float(np.median([one["import_ms"] for one in load[model.name]])),
                "all": [one["load_ms"] for one in load[model.name]],
            },
            "latency": {threads: found[model.name] for threads, found in latency.items()},
            "versions": dict(model.versions),
        }
        for model in contest.models
    ]
    return Outcome(
        baseline=baseline,
        models=models,
        findings=[
            finding
            for threads, found in times.items()
            for finding in findings(contest.models, found, threads=threads, compared=contest.compared)
        ],
        control={threads: control(found[TEACHER], found[AGAIN]) for threads, found in times.items()},
        failures=contest.failures,
        compared=contest.compared,
    )
