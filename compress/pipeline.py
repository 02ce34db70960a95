"""The order of the stages, what is redone and what is not, gates and backtracking. The only file that knows the order."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import compress
from compress.artifact import Origin, open_artifact, read_record, seal
from compress.gates import judge_accuracy, judge_size, judge_speed
from compress.ledger import Ledger
from compress.measure import Probe, Reference, measure
from compress.record import ArtifactRecord, LayerRecord, Measurement, RunResult, StageResult, Verdict
from compress.recipe import Recipe
from compress.settings import Gates, Settings
from compress.sources import Inputs, load_inputs
from compress.stage import Context, Product, Stage
from compress.stages import DISTILL, EXPORT, PRUNE, QUANTIZE, TRAIN
from models.checkpoint import Checkpoint
from models.errors import BadFile, BadInput, GateFailed
from models.files import digest_of
from models.progress import Progress, silent

# The number is the directory's: it stays the same whether or not the stages before it are asked for.
ORDER: tuple[tuple[int, Stage[Any, Any]], ...] = ((1, DISTILL), (2, PRUNE), (3, QUANTIZE), (4, EXPORT))
TEACHER = "teacher"


@dataclass(frozen=True, slots=True)
class Run:
    """What stays the same from stage to stage of one run."""

    recipe: Recipe
    inputs: Inputs
    ledger: Ledger
    cache: Path
    progress: Progress
    on_stage: Callable[[StageResult], None]


@dataclass(frozen=True, slots=True)
class Made:
    """An artifact that is there: its directory, record, and whether this call computed it."""

    directory: Path
    record: ArtifactRecord
    seconds: float
    computed: bool


def run(recipe: Recipe, *, out: Path, cache: Path, progress: Progress = silent) -> RunResult:
    """Carry out a recipe in `out/<name>` and return what came of it.

    Raises:
        GateFailed: a gate was not passed; what was made stays, and `run.json` says why.
        CompressError: as the stages, the data and the files raise.
    """
    result = execute(recipe, out=out, cache=cache, progress=progress)
    require_passed(result)
    return result


def execute(
    recipe: Recipe,
    *,
    out: Path,
    cache: Path,
    progress: Progress = silent,
    on_stage: Callable[[StageResult], None] = lambda result: None,
) -> RunResult:
    """Carry out a recipe as `run` does, but return a failed result instead of raising GateFailed."""
    ledger = Ledger(out / recipe.name)
    ledger.check()
    ledger.directory.mkdir(parents=True, exist_ok=True)
    with _locked(ledger.directory):
        inputs = load_inputs(recipe, cache=cache, progress=progress)
        state = Run(recipe, inputs, ledger, cache, progress, on_stage)
        teacher = _root(state)
        results, computed = [teacher[1]], [teacher[1].stage] if teacher[0].computed else []
        parent = teacher[0]
        for number, stage in ORDER:
            settings = getattr(recipe, stage.name)
            if settings is None:
                continue
            made, result = _pass(state, number, stage, settings, parent, results[0])
            results.append(result)
            computed += [stage.name] if made.computed else []
            parent = made
            if not all(verdict.passed for verdict in result.verdicts):
                break
        whole = RunResult(
            name=recipe.name,
            recipe=recipe.model_dump(mode="json"),
            labels=list(inputs.labels),
            data=list(inputs.records),
            stages=results,
            passed=all(verdict.passed for result in results for verdict in result.verdicts),
            computed=computed,
        )
        ledger.finish(whole)
        _publish(ledger.directory, whole)
        return whole


def require_passed(result: RunResult) -> None:
    """Raise GateFailed when a gate of `result` was not passed, with every failed verdict in the message."""
    failed = [verdict for stage in result.stages for verdict in stage.verdicts if not verdict.passed]
    if failed:
        raise GateFailed(
            "; ".join(verdict.message for verdict in failed),
            where=f"stage {failed[0].stage}",
            fix=" ".join(dict.fromkeys(verdict.advice for verdict in failed if verdict.advice)) or None,
        )


def _root(state: Run) -> tuple[Made, StageResult]:
    """Return the teacher's artifact: as given, or trained first."""
    inputs, settings = state.inputs, state.recipe.train
    if settings is None:
        origin = _origin(state, TEACHER, {}, None)
        made = _make(state, "0-teacher", origin, lambda scratch: (inputs.base(), {}))
        return made, _judge(state, made, TEACHER, 0, None)
    origin = _origin(state, TRAIN.name, settings.model_dump(mode="json"), None)

    def train(scratch: Path) -> tuple[Product, dict[str, Any]]:
        base = inputs.base()
        output = TRAIN.run(base, settings, _context(state, base, scratch))
        return output.product, output.details

    made = _make(state, "0-train", origin, train)
    return made, _judge(state, made, TRAIN.name, 0, None)


def _pass(
    state: Run, number: int, stage: Stage[Any, Any], settings: Settings, parent: Made, teacher: StageResult
) -> tuple[Made, StageResult]:
    """Carry out one stage, with milder settings after a failed gate where the recipe asks for that."""
    attempt = 0
    while True:
        origin = _origin(state, stage.name, settings.model_dump(mode="json"), parent.record)
        name = f"{number}-{stage.name}" + (f"-try{attempt + 1}" if attempt else "")
        made = _make(state, name, origin, _work(state, stage, settings, parent))
        result = _judge(state, made, stage.name, attempt, teacher)
        failed = [verdict for verdict in result.verdicts if not verdict.passed]
        if not failed or state.recipe.on_failure != "backtrack":
            return made, result
        # A milder setting trades speed and size for accuracy: it can only mend a failed accuracy gate.
        milder = stage.milder(settings, made.record.details) if failed[0].gate == "accuracy" else None
        if milder is None:
            return made, result
        settings, attempt = milder, attempt + 1


def _work(
    state: Run, stage: Stage[Any, Any], settings: Settings, parent: Made
) -> Callable[[Path], tuple[Product, dict[str, Any]]]:
    def work(scratch: Path) -> tuple[Product, dict[str, Any]]:
        teacher = Checkpoint.load(state.ledger.directory / _root_name(state.recipe))
        output = stage.run(Checkpoint.load(parent.directory), settings, _context(state, teacher, scratch))
        return output.product, output.details

    return work


def _root_name(recipe: Recipe) -> str:
    return "0-teacher" if recipe.train is None else "0-train"


def _context(state: Run, teacher: Checkpoint, scratch: Path) -> Context:
    return Context(
        teacher=teacher,
        task=state.inputs.task,
        train=state.inputs.train(),
        validation=state.inputs.validation(),
        seed=state.recipe.seed,
        threads=state.recipe.threads or os.cpu_count() or 1,
        scratch=scratch,
        cache=state.cache,
        progress=state.progress,
    )


def _origin(state: Run, stage: str, settings: dict[str, Any], parent: ArtifactRecord | None) -> Origin:
    return Origin(
        stage=stage,
        settings=settings,
        parent=None if parent is None else parent.digest,
        inputs=state.inputs.keys(stage),
        seed=state.recipe.seed,
        code=compress.__version__,
        lineage=() if parent is None else (*parent.lineage, parent.digest),
    )


def _make(
    state: Run, name: str, origin: Origin, work: Callable[[Path], tuple[Product, dict[str, Any]]]
) -> Made:
    """Return the artifact of `origin`: the one that stands there if its inputs are the same, else a new one."""
    directory = state.ledger.directory / name
    if directory.exists():
        try:
            record = read_record(directory)
        except BadFile:
            raise BadInput("the directory holds something else", where=str(directory), fix="Remove it.") from None
        if record.key == origin.key:
            return Made(directory, open_artifact(directory), float(record.details.get("seconds", 0.0)), computed=False)
    scratch = state.ledger.directory / "scratch" / origin.key
    scratch.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    product, details = work(scratch)
    seconds = time.monotonic() - start
    record = seal(
        directory,
        origin,
        save=product.save,
        parameters=product.parameters,
        details={**details, "seconds": round(seconds, 1)},
    )
    shutil.rmtree(scratch, ignore_errors=True)
    return Made(directory, record, seconds, computed=True)


def _judge(state: Run, made: Made, stage: str, attempt: int, teacher: StageResult | None) -> StageResult:
    """Measure an artifact, compare it with the teacher, and say what its gates decide."""
    probe = Probe.open(made.directory, made.record)
    validation = _measured(state, made, probe, "validation", timed=True)
    test = _measured(state, made, probe, "test", timed=False) if state.inputs.has_test else None
    verdicts = []
    if teacher is not None:
        verdicts = _verdicts(state.recipe.gates.of(stage), stage, teacher.validation, validation)
    result = StageResult(
        stage=stage,
        directory=made.directory.name,
        artifact=made.record,
        layers=[LayerRecord(heads=layer.heads, head_size=layer.head_size, ffn=layer.ffn) for layer in probe.layers],
        int8=probe.int8,
        seconds=made.seconds,
        attempt=attempt,
        validation=validation,
        test=test,
        verdicts=verdicts,
    )
    state.on_stage(result)
    return result


def _measured(state: Run, made: Made, probe: Probe, role: str, *, timed: bool) -> Measurement:
    data = state.inputs.validation() if role == "validation" else state.inputs.test()
    root = state.ledger.directory / _root_name(state.recipe)
    reference = Reference.of(root, read_record(root)) if timed else None
    settings = state.recipe.measure.model_dump(mode="json") if timed else None
    key = [made.record.digest, data.digest, settings, reference and reference.digest, probe.environment(state.recipe)]
    known = state.ledger.measurement(key)
    if known is not None:
        return known
    scratch = state.ledger.directory / "scratch" / f"measure-{digest_of(key)[:16]}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    measurement = measure(probe, data, state.inputs.task, state.recipe, reference, scratch, state.progress)
    state.ledger.keep(key, measurement)
    shutil.rmtree(scratch, ignore_errors=True)
    return measurement


def _verdicts(gates: Gates, stage: str, teacher: Measurement, candidate: Measurement) -> list[Verdict]:
    verdicts = []
    if gates.accuracy is not None:
        points = gates.accuracy.max_loss / 100
        verdicts.append(
            judge_accuracy(
                stage=stage,
                teacher=teacher,
                candidate=candidate,
                max_loss=points,
                confidence=gates.accuracy.confidence,
            )
        )
    if gates.speed is not None and candidate.latency is not None and candidate.baseline_latency is not None:
        verdicts.append(
            judge_speed(
                stage=stage,
                baseline_rounds=candidate.baseline_latency.rounds,
                candidate_rounds=candidate.latency.rounds,
                min_speedup=gates.speed.min_speedup,
                confidence=gates.speed.confidence,
            )
        )
    if gates.size is not None:
        verdicts.append(
            judge_size(
                stage=stage,
                teacher_bytes=teacher.bytes,
                candidate_bytes=candidate.bytes,
                min_ratio=gates.size.min_ratio,
            )
        )
    return verdicts


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    lock = FileLock(directory / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput("another run is at work in this directory", where=str(directory)) from None
    try:
        yield
    finally:
        lock.release()
