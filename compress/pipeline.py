"""The order of the stages, what is redone and what is not, gates and backtracking: only this file knows the order."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import compress
from compress.artifact import Origin, open_artifact, read_record, seal
from compress.ledger import Ledger
from compress.machine import environment, torch_threads
from compress.measure import Probe, Subject, measure, measure_agreement
from compress.publish import publish
from compress.recipe import Recipe
from compress.record import ArtifactRecord, LayerRecord, Measurement, RunResult, StageResult, Step
from compress.settings import Settings
from compress.sources import FOREIGN, Inputs, load_inputs
from compress.stage import Context, Product, Stage
from compress.stages import DISTILL, EXPORT, PRUNE, QUANTIZE, TRAIN, TRIM
from compress.verdicts import judge
from models.checkpoint import Checkpoint
from models.errors import BadFile, BadInput, GateFailed
from models.files import digest_of
from models.progress import Progress, silent

# The number is the directory's: it stays the same whether or not the stages before it are asked for.
ORDER: tuple[tuple[int, Stage[Any, Any]], ...] = (
    (1, DISTILL),
    (2, PRUNE),
    (3, TRIM),
    (4, QUANTIZE),
    (5, EXPORT),
)
TEACHER = "teacher"
MENDABLE = ("accuracy", "agreement")

Work = Callable[[Path], tuple[Product, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Run:
    """What stays the same from stage to stage of one run."""

    recipe: Recipe
    inputs: Inputs
    ledger: Ledger
    cache: Path
    progress: Progress = silent
    on_stage: Callable[[StageResult], None] = lambda result: None

    @property
    def root(self) -> Path:
        """Return the directory of the teacher's artifact."""
        return self.ledger.directory / ("0-teacher" if self.recipe.train is None else "0-train")


@dataclass(frozen=True, slots=True)
class Made:
    """An artifact that is there: its directory, its record, and whether this call computed it."""

    directory: Path
    record: ArtifactRecord
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
    with opened(
        recipe, out=out, cache=cache, progress=progress, on_stage=on_stage, wanted_by="a run with gates"
    ) as state:
        parent = make_root(state)
        results = [judged(state, parent, TEACHER if recipe.train is None else TRAIN.name, None)]
        computed = [results[0].stage] if parent.computed else []
        for number, stage in ORDER:
            settings = getattr(recipe, stage.name)
            if settings is None or not all(verdict.passed for verdict in results[-1].verdicts):
                continue
            parent, result = _attempts(state, number, stage, settings, parent, results[0])
            results.append(result)
            computed += [stage.name] if parent.computed else []
        return concluded(state, summary(state, results, computed))


@contextmanager
def opened(
    recipe: Recipe,
    *,
    out: Path,
    cache: Path,
    progress: Progress,
    on_stage: Callable[[StageResult], None],
    wanted_by: str,
) -> Iterator[Run]:
    """Yield the run of a recipe in `out/<name>` with its inputs read; nobody else is at work there meanwhile.

    Raises:
        BadInput: the directory holds something else, another run is at work in it, or there are no validation data;
            `wanted_by` says who needs them.
        CompressError: as the data and the files raise.
    """
    ledger = Ledger(out / recipe.name)
    ledger.check()
    ledger.directory.mkdir(parents=True, exist_ok=True)
    with locked(ledger.directory), torch_threads(recipe.threads):
        inputs = load_inputs(recipe, cache=cache, progress=progress)
        inputs.require("validation", wanted_by=wanted_by)
        yield Run(recipe, inputs, ledger, cache, progress, on_stage)


def concluded(state: Run, whole: RunResult) -> RunResult:
    """Write what came of a run, hand over its bundle, and return it."""
    state.ledger.finish(whole)
    publish(state.ledger.directory, whole, state.inputs.base.source)
    return whole


def summary(state: Run, results: list[StageResult], computed: list[str]) -> RunResult:
    """Return what is told of a run."""
    return RunResult(
        name=state.recipe.name,
        recipe=state.recipe.model_dump(mode="json"),
        labels=list(state.inputs.labels),
        data=list(state.inputs.records),
        stages=results,
        passed=all(verdict.passed for result in results for verdict in result.verdicts),
        computed=computed,
    )


def require_passed(result: RunResult) -> None:
    """Raise GateFailed when `result` hands nothing over, with every failed verdict in the message."""
    if result.passed:
        return
    failed = [verdict for stage in result.stages for verdict in stage.verdicts if not verdict.passed]
    if failed:
        raise GateFailed(
            "; ".join(verdict.message for verdict in failed),
            where=f"stage {failed[0].stage}",
            fix=" ".join(dict.fromkeys(verdict.advice for verdict in failed if verdict.advice)) or None,
        )


def make_root(state: Run) -> Made:
    """Return the teacher's artifact: as given, or trained first."""
    inputs, settings = state.inputs, state.recipe.train
    if settings is None:
        return make(state, state.root, origin_of(state, TEACHER, {}, None), lambda scratch: (inputs.base, {}))

    def train(scratch: Path) -> tuple[Product, dict[str, Any]]:
        output = TRAIN.run(inputs.base, settings, context_of(state, TRAIN.name, inputs.base, inputs.base, scratch))
        return output.product, output.details

    return make(state, state.root, origin_of(state, TRAIN.name, settings.model_dump(mode="json"), None), train)


def _attempts(
    state: Run, number: int, stage: Stage[Any, Any], settings: Settings, parent: Made, teacher: StageResult
) -> tuple[Made, StageResult]:
    """Carry out one stage, with milder settings after a failed accuracy gate where the recipe asks for that."""
    attempt = 0
    while True:
        name = f"{number}-{stage.name}" + (f"-try{attempt + 1}" if attempt else "")
        made = make_stage(state, state.ledger.directory / name, stage, settings, parent)
        result = judged(state, made, stage.name, teacher, parent=parent if stage is TRIM else None, attempt=attempt)
        failed = [verdict for verdict in result.verdicts if not verdict.passed]
        # Milder settings trade speed and size for accuracy: they can only mend what is lost in answers.
        mendable = bool(failed) and failed[0].gate in MENDABLE and state.recipe.on_failure == "backtrack"
        milder = stage.milder(settings, made.record.details) if mendable else None
        if milder is None:
            return made, result
        settings, attempt = milder, attempt + 1


def make_stage(state: Run, directory: Path, stage: Stage[Any, Any], settings: Settings, parent: Made) -> Made:
    """Return the artifact of one stage on `parent`."""

    def work(scratch: Path) -> tuple[Product, dict[str, Any]]:
        checkpoint = Checkpoint.load(parent.directory)
        teacher = Checkpoint.load(state.root)
        context = context_of(state, stage.name, checkpoint, teacher, scratch, draw=parent.record.digest)
        output = stage.run(checkpoint, settings, context)
        return output.product, output.details

    origin = origin_of(state, stage.name, settings.model_dump(mode="json"), parent.record)
    return make(state, directory, origin, work)


def is_made(state: Run, directory: Path, stage: Stage[Any, Any], settings: Settings, parent: Made) -> bool:
    """Return whether `make_stage` would find the artifact finished."""
    try:
        record = read_record(directory)
    except BadFile:
        return False
    return record.key == origin_of(state, stage.name, settings.model_dump(mode="json"), parent.record).key


def context_of(
    state: Run, stage: str, parent: Checkpoint, teacher: Checkpoint, scratch: Path, *, draw: str = ""
) -> Context:
    """Return what a stage may use; every `draw` changes other words of the copies that students learn from."""
    inputs = state.inputs
    return Context(
        teacher=teacher,
        task=inputs.task,
        examples={role: inputs.encoded(role, parent) for role in inputs.read_by(stage)},
        encoded=inputs.encoded,
        lessons=partial(inputs.lessons, draw=draw),
        seed=state.recipe.seed,
        threads=state.recipe.measure.threads,
        scratch=scratch,
        cache=state.cache,
        progress=state.progress,
        ensemble=inputs.ensemble,
        sequence=state.recipe.distill is not None and state.recipe.distill.sequence,
    )


def origin_of(state: Run, stage: str, settings: dict[str, Any], parent: ArtifactRecord | None) -> Origin:
    """Return everything that decides an artifact's content."""
    # Only pruning measures latency, so only a pruned model is another one when the device has other threads.
    timed = {"threads": str(state.recipe.measure.threads)} if stage == PRUNE.name else {}
    return Origin(
        stage=stage,
        settings=settings,
        parent=None if parent is None else parent.digest,
        inputs=state.inputs.keys(stage) | timed,
        seed=state.recipe.seed,
        code=compress.__version__,
        lineage=() if parent is None else (*parent.lineage, parent.digest),
    )


def make(state: Run, directory: Path, origin: Origin, work: Work) -> Made:
    """Return the artifact of `origin`: the one that stands there if its inputs are the same, else a new one.

    Raises:
        BadInput: the directory holds something else.
        BadFile: it holds the right artifact, but a file of it was changed.
    """
    if directory.exists() and any(directory.iterdir()):
        try:
            record = read_record(directory)
        except BadFile:
            raise BadInput("the directory holds something else", where=str(directory), fix="Remove it.") from None
        if record.key == origin.key:
            return Made(directory, open_artifact(directory), computed=False)
    scratch = state.ledger.scratch(origin.key)
    start = time.monotonic()
    product, details = work(scratch)
    record = seal(
        directory,
        origin,
        save=product.save,
        parameters=product.parameters,
        details={**details, "seconds": round(time.monotonic() - start, 1)},
    )
    shutil.rmtree(scratch, ignore_errors=True)
    return Made(directory, record, computed=True)


def judged(
    state: Run,
    made: Made,
    stage: str,
    teacher: StageResult | None,
    *,
    parent: Made | None = None,
    attempt: int = 0,
    name: str | None = None,
    steps: Sequence[Made] = (),
) -> StageResult:
    """Measure an artifact, compare it with the teacher, and return what its gates decide.

    With a `parent`, the artifact before its vocabulary was trimmed, the answers on texts from elsewhere are compared
    with that one's. The result is told under `name` where that is not the stage's own, with the `steps` to it that are
    no results themselves.
    """
    probe = Probe.open(made.directory, made.record.digest)
    validation = _measured(state, probe, "validation", timed=True)
    gates = state.recipe.gates.of(stage)
    foreign = None
    if parent is not None and FOREIGN in state.inputs.tables:
        foreign = _agreement(state, probe, parent, validation)
    verdicts = []
    if teacher is not None:
        verdicts = judge(gates, stage=stage, teacher=teacher.validation, candidate=validation, foreign=foreign)
    result = StageResult(
        stage=name or stage,
        directory=made.directory.relative_to(state.ledger.directory).as_posix(),
        artifact=made.record,
        layers=[LayerRecord.of(layer) for layer in probe.layers],
        int8=len(probe.shape.int8),
        seconds=float(made.record.details["seconds"]),
        attempt=attempt,
        validation=validation,
        test=_measured(state, probe, "test", timed=False) if "test" in state.inputs.tables else None,
        foreign=foreign,
        verdicts=[verdict.model_copy(update={"stage": name or stage}) for verdict in verdicts],
        steps=[Step(stage=one.record.stage, artifact=one.record.digest, settings=one.record.settings) for one in steps],
    )
    state.on_stage(result)
    return result


def _measured(state: Run, probe: Probe, role: str, *, timed: bool) -> Measurement:
    """Return a measurement from the ledger, or take it and keep it there."""
    inputs, settings = state.inputs, state.recipe.measure
    root = read_record(state.root)
    here = environment(settings.threads).model_dump(mode="json")
    key = [probe.digest, inputs.name(role), here, [settings.model_dump(mode="json"), root.digest] if timed else None]
    known = state.ledger.measurement(key)
    if known is not None:
        return known
    scratch = state.ledger.scratch(f"measure-{digest_of(key)[:16]}")

    def subject(of: Probe) -> Subject:
        return Subject(of, inputs.encoded(role, of.product))

    measurement = measure(
        subject(probe),
        inputs.task,
        name=inputs.name(role),
        reference=subject(Probe.open(state.root, root.digest)) if timed else None,
        settings=settings,
        scratch=scratch,
        progress=state.progress,
    )
    state.ledger.keep(key, measurement)
    shutil.rmtree(scratch, ignore_errors=True)
    return measurement


def _agreement(state: Run, probe: Probe, parent: Made, like: Measurement) -> Measurement:
    """Return on how many texts from elsewhere the answers are the parent's, from the ledger where it is there."""
    inputs = state.inputs
    key = [probe.digest, inputs.name(FOREIGN), parent.record.digest]
    known = state.ledger.measurement(key)
    if known is None:
        before = Probe.open(parent.directory, parent.record.digest)
        ours, theirs = (Subject(one, inputs.encoded(FOREIGN, one.product)) for one in (probe, before))
        known = measure_agreement(
            ours,
            theirs,
            inputs.task,
            name=inputs.name(FOREIGN),
            like=like,
            progress=state.progress,
        )
        state.ledger.keep(key, known)
    return known


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep a second run out of `directory`.

    Raises:
        BadInput: there is one at work.
    """
    lock = FileLock(directory / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput("another run is at work in this directory", where=str(directory)) from None
    try:
        yield
    finally:
        lock.release()
