"""One stage on its own: the same work, measuring and gates as in a run, and an artifact where the caller wants it."""

from __future__ import annotations

import shutil
from pathlib import Path

import compress
from compress.artifact import RECORD_FILE, Origin
from compress.ledger import Ledger
from compress.machine import torch_threads
from compress.pipeline import (
    ORDER,
    TEACHER,
    Made,
    Run,
    judged,
    locked,
    make,
    make_root,
    make_stage,
    summary,
)
from compress.recipe import Recipe
from compress.record import ArtifactRecord, RunResult
from compress.sources import load_inputs, tree_digest
from compress.stages import TRAIN, TRIM
from models.checkpoint import Checkpoint
from models.errors import BadInput
from models.files import digest_of, new_directory
from models.hub import local_directory
from models.progress import Progress, silent
from teacher_student.compute import Compute
from teacher_student.processes import Processes

DISTRIBUTED = ("train", "distill")


def execute_stage(
    stage: str, recipe: Recipe, *, model: str | None, out: Path, cache: Path, progress: Progress = silent
) -> tuple[ArtifactRecord, RunResult | None] | None:
    """Carry out one stage of `recipe` on `model` (a checkpoint or artifact; None where it starts from the teacher).

    Returns the artifact's record and, where there are validation examples, what was measured and judged. A process
    that only lends a hand (`accelerate launch`) gets None.

    Raises:
        BadInput: `out` holds something that is not an artifact, or several processes for a stage that takes one.
        CompressError: as the stage raises.
    """
    if out.exists() and not (out / RECORD_FILE).exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput("the output already holds something else", where=str(out), fix="Choose another --out.")
    processes = Processes.join(Compute.best())
    if processes.count > 1 and stage not in DISTRIBUTED:
        raise BadInput(f"{stage} runs in one process", where="accelerate launch", fix=f"Run `compress {stage}` alone.")
    work = cache / "single" / digest_of([stage, str(out.resolve())])[:24]
    ledger = Ledger(work if processes.first else work.with_name(f"{work.name}-{processes.number}"))
    ledger.directory.mkdir(parents=True, exist_ok=True)
    with locked(ledger.directory), torch_threads(recipe.threads):
        inputs = processes.first_goes_ahead(lambda: load_inputs(recipe, cache=cache, progress=progress))
        state = Run(recipe, inputs, ledger, cache, progress)
        root = make_root(state)
        parent = root if model is None or stage == TRAIN.name else _opened(state, model)
        made = root if stage == TRAIN.name else _made(state, stage, parent)
        if not processes.first:
            shutil.rmtree(ledger.directory)
            return None
        result = _judged(state, stage, root, parent, made) if "validation" in inputs.tables else None
        with new_directory(out, replace=(out / RECORD_FILE).exists()) as partial:
            shutil.copytree(made.directory, partial, dirs_exist_ok=True)
    shutil.rmtree(ledger.directory)
    return made.record, result


def _made(state: Run, name: str, parent: Made) -> Made:
    number, stage = next((number, stage) for number, stage in ORDER if stage.name == name)
    return make_stage(state, state.ledger.directory / f"{number}-{name}", stage, getattr(state.recipe, name), parent)


def _opened(state: Run, model: str) -> Made:
    """Return the parent's artifact: a copy, so that the work resumes even when the original is gone."""
    files = tree_digest(local_directory(model))
    origin = Origin("model", {}, None, {"files": files}, 0, compress.__version__)
    return make(state, state.ledger.directory / "0-model", origin, lambda scratch: (Checkpoint.load(model), {}))


def _judged(state: Run, stage: str, root: Made, parent: Made, made: Made) -> RunResult:
    if stage == TRAIN.name:
        return summary(state, [judged(state, root, TRAIN.name, None)], [stage])
    teacher = judged(state, root, TEACHER, None)
    return summary(
        state, [teacher, judged(state, made, stage, teacher, parent=parent if stage == TRIM.name else None)], [stage]
    )
