"""Trainings as long as the time of a search allows and its texts are worth, by how fast this machine trains."""

from __future__ import annotations

import bisect
import math
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar, final

from compress.pipeline import Made, Run, context_of
from compress.recipe import Recipe
from compress.settings import DistillSettings, LessonSettings
from compress.stages import DISTILL
from models.checkpoint import Checkpoint
from models.errors import Unsupported
from models.targets import Writes
from teacher_student.teacher_cache import teacher_outputs

L = TypeVar("L", bound=LessonSettings)

STEPS = 20  # of training that are timed
LIGHTER = 1.2  # times as fast a level is trained as the one before
LEVEL_SECONDS = 120.0  # of a level besides training and evaluation: scores, latency tables, rounds of timing
RESERVE = 0.1  # of the time, for what is not foreseen
SHORTEST = 0.2  # of the trainings of a level, in what is left of the time
ENOUGH = 240_000  # texts of one training, repeated or changed ones counted anew: what few texts are lengthened to


@final
@dataclass(frozen=True, slots=True)
class Pace:
    """How many texts a second the teacher answers, and the student that a search begins with is trained on."""

    teacher: float
    student: float


class Room(NamedTuple):
    """What there is time for: trainings so many times as long as the recipe says, in so many levels."""

    share: float
    levels: int


def room_for(state: Run, root: Made) -> Room:
    """Return what the search's time allows here. One level is trained for as long as there is time, since two short
    trainings make up for less than a long one; more come where there is time behind the longest that its texts are
    worth.

    Raises:
        Unsupported: a model that writes, which is judged at the pace of its writing.
    """
    recipe = state.recipe
    assert recipe.search is not None
    texts, validation = (len(state.inputs.tables.get(role, ())) for role in ("train", "validation"))
    if not recipe.search.fit or not _passes(recipe) or not texts:
        return Room(1.0, 1)
    if state.inputs.task.writes is not Writes.NOTHING:
        raise Unsupported(
            "trainings of a model that writes, as long as the time of a search allows",
            where="search.fit",
            fix="Set it to false: trainings are then as long as the recipe says.",
        )
    seconds = 60 * recipe.search.minutes / recipe.search.trials * (1 - RESERVE)
    pace = _pace(state, root)
    share = affordable_share(recipe, pace, texts=texts, validation=validation, seconds=seconds)
    return Room(share, affordable_levels(recipe, share, pace, texts=texts, validation=validation, seconds=seconds))


def affordable_share(recipe: Recipe, pace: Pace, *, texts: int, validation: int, seconds: float) -> float:
    """Return the largest share of the trainings, in hundredths, with which one level takes no longer than `seconds`.

    It is above 1 only as far as no training sees more than ENOUGH texts. `texts` are learned from, copies not counted,
    and every level is evaluated on `validation` of them.
    """
    most = max(1.0, ENOUGH / (texts * max(_passes(recipe))))
    hundredths = range(1, int(100 * most) + 1)
    fitting = bisect.bisect_right(
        hundredths, seconds, key=lambda one: _seconds(scaled(recipe, one / 100), 1, pace, texts, validation)
    )
    return max(1, fitting) / 100


def affordable_levels(recipe: Recipe, share: float, pace: Pace, *, texts: int, validation: int, seconds: float) -> int:
    """Return how many levels, at least one, with trainings of this share take no longer than `seconds`."""
    assert recipe.search is not None
    levels, paced = range(1, 1 + recipe.search.levels), scaled(recipe, share)
    return max(1, bisect.bisect_right(levels, seconds, key=lambda one: _seconds(paced, one, pace, texts, validation)))


def share_left(seconds: float, *, took: float, trained: float, share: float) -> float:
    """Return the share of the recipe's trainings with which another level ends within `seconds`, in hundredths and at
    most 1; 0 where that leaves less than SHORTEST.

    It is taken to last as long as the level before it, which took so many seconds, `trained` of them in trainings that
    were `share` times as long as the recipe's. Where nothing was trained there is nothing to shorten.
    """
    if not trained:
        return 1.0 if took <= seconds else 0.0
    found = math.floor(100 * share * (seconds - max(0.0, took - trained)) / trained) / 100
    return min(found, 1.0) if found >= SHORTEST else 0.0


def scaled(recipe: Recipe, share: float) -> Recipe:
    """Return the recipe with trainings so many times as long.

    Copies come and go first: as many as the passes leave time for that the recipe asks for over the texts themselves,
    and none where it asks for none.
    """
    if share == 1:
        return recipe
    assert recipe.prune is not None
    recovery = recipe.prune.recovery
    other = _scaled(recovery, share)
    between = recipe.prune.round_epochs * share * (1 + recovery.copies) / (1 + other.copies)
    prune = recipe.prune.model_copy(update={"recovery": other, "round_epochs": round(between, 4)})
    distill = None if recipe.distill is None else _scaled(recipe.distill, share)
    return recipe.model_copy(update={"prune": prune, "distill": distill})


def _scaled(settings: L, share: float) -> L:
    passes = settings.epochs * (1 + settings.copies) * share  # over the texts, copies among them
    copies = max(0, math.ceil(round(passes / settings.epochs, 6)) - 1) if settings.copies else 0
    return settings.model_copy(update={"epochs": round(passes / (1 + copies), 4), "copies": copies})


def _passes(recipe: Recipe) -> list[float]:
    """Return over how many texts each training goes for every text there is; nothing for those that are not done."""
    assert recipe.prune is not None
    settings = [recipe.prune.recovery] if recipe.distill is None else [recipe.distill, recipe.prune.recovery]
    return [one.epochs * (1 + one.copies) for one in settings if one.epochs]


def _seconds(recipe: Recipe, levels: int, pace: Pace, texts: int, validation: int) -> float:
    """Return how long a search for so many levels takes."""
    assert recipe.prune is not None
    recovery = recipe.prune.recovery
    epochs = recovery.epochs + recipe.prune.round_epochs * (recipe.prune.rounds - 1)
    lessons = texts * (1 + recovery.copies)
    answered = levels * lessons if epochs else 0
    trained = sum(epochs * lessons / LIGHTER**level for level in range(1, 1 + levels))
    if recipe.distill is not None:
        answered += texts * (1 + recipe.distill.copies)
        trained += recipe.distill.epochs * texts * (1 + recipe.distill.copies)
    evaluated = 2 * validation * levels
    return (answered + evaluated) / pace.teacher + trained / pace.student + LEVEL_SECONDS * levels


def _pace(state: Run, root: Made) -> Pace:
    """Return the pace on a few steps of the training that the search begins with; nothing of it is kept."""
    checkpoint = Checkpoint.load(root.directory)
    prune = state.recipe.prune
    assert prune is not None
    settings = state.recipe.distill or DistillSettings(
        layers=len(checkpoint.shape.layers),
        batch_size=prune.recovery.batch_size,
        losses=prune.recovery.losses,
        dropout=prune.recovery.dropout,
    )
    with tempfile.TemporaryDirectory(dir=state.ledger.scratch("pace")) as scratch:
        context = context_of(state, DISTILL.name, checkpoint, checkpoint, Path(scratch))
        few = context.train.drawn(STEPS * settings.batch_size, seed=context.seed)
        # A first call, that memory and kernels are got ready in, would be taken for a slow machine.
        teacher_outputs(checkpoint, few.drawn(settings.batch_size, seed=context.seed), cache=Path(scratch))
        began = time.perf_counter()
        teacher_outputs(checkpoint, few, cache=Path(scratch))
        teacher = len(few) / (time.perf_counter() - began)
        short = settings.model_copy(update={"epochs": 1.0, "int8_epochs": 0.0, "copies": 0})
        trial = replace(context, examples={"train": few}, lessons=lambda copies, reader: few, cache=Path(scratch))
        training = DISTILL.run(checkpoint, short, trial).details["training"]
    return Pace(teacher, training["examples_per_second"])
