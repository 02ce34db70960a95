"""The fastest model that is still right: a family of models, each pruned from the one before, judged mildest first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import final

from compress.goal_settings import AccuracyGate, AgreementGate, Gates, GateSettings, SearchSettings, SizeGate, SpeedGate
from compress.pacing import room_for, scaled, share_left
from compress.pipeline import (
    ORDER,
    TEACHER,
    Made,
    Run,
    concluded,
    is_made,
    judged,
    make_root,
    make_stage,
    opened,
    summary,
)
from compress.recipe import Recipe, make_recipe, merged
from compress.record import RunResult, StageResult
from compress.settings import PruneSettings
from compress.sources import FOREIGN
from compress.stages import DISTILL, EXPORT, PRUNE, TRIM
from compress.trials import Clock, Trial, Trials
from models.errors import BadInput, Unreachable
from models.files import digest_of
from models.progress import Progress, silent

FINISHING = tuple(stage for _, stage in ORDER if stage not in (DISTILL, PRUNE, TRIM))
SCALED = " (trainings were {:.2g} times as long as the recipe says: what {:g} minutes on this machine allow)"
SHORTENED = " (trainings of {} {:.2g} times as long as those of the first level: what was left of {:g} minutes)"
# How far the first level is cut where the goal says it: so many times as fast where nothing may be lost, more by each
# point, no further than what one training was ever seen to make up for.
AT_NONE, BY_POINT, FARTHEST = 1.2, 1.4, 5.0
FALSE_PASS = 0.05  # chance that a search hands over a model that loses more than allowed


@final
@dataclass(frozen=True, slots=True)
class Growth:
    """One family: what was measured of every level, mildest first, why it ended, and whether only time was short.

    `computed` names the levels of which something was not there yet.
    """

    points: tuple[StageResult, ...]
    computed: tuple[str, ...]
    ended: str
    late: bool = False


def search(
    recipe: Recipe,
    *,
    out: Path,
    cache: Path,
    progress: Progress = silent,
    on_stage: Callable[[StageResult], None] = lambda result: None,
) -> RunResult:
    """Carry out the search of a recipe in `out/<name>` and return what came of it; the chosen bundle is published.

    Levels of one family are judged mildest first and the first that loses too much ends it: a fixed sequence, in which
    each may be judged with the full error (Maurer, Hothorn and Lehmacher 1995). Of several families each gets its
    share of the error (Bonferroni). A search that was stopped goes on where it was.

    Raises:
        BadInput: the recipe has no search, no prune stage or no export stage.
        CompressError: as the stages, the data and the files raise.
    """
    settings = _settings(recipe)
    began = time.monotonic()
    judging = recipe.model_copy(update={"gates": goals(settings, recipe.gates.of(TRIM.name).agreement)})
    with opened(judging, out=out, cache=cache, progress=progress, on_stage=on_stage, wanted_by="a search") as state:
        root = make_root(state)
        teacher = judged(state, root, TEACHER, None)
        trials = Trials(settings, name=_study(state, root), directory=state.ledger.directory, seed=recipe.seed)
        clock = Clock(trials, began=began)
        state = replace(state, progress=clock.watched(state.progress))
        room, name = once(partial(room_for, state, root)), _trained(state, root)
        share = trials.remembered(f"share-{name}", lambda: room().share)
        levels = int(trials.remembered(f"levels-{name}", lambda: room().levels))

        def grown_from(trial: Trial) -> Growth:
            return grow(_of(state, trial, share), root, teacher, settings, trial=trial, clock=clock, room=levels)

        grown = [grown_from(trial) for trial in trials.finished()]
        while not any(growth.late for growth in grown) and (trial := trials.next()) is not None:
            grown.append(grown_from(trial))
            trials.tell(trial, _score(grown[-1].points))
        return concluded(state, _told(state, root, teacher, grown, share))


def goals(settings: SearchSettings, agreement: AgreementGate) -> GateSettings:
    """Return the gates that every level is judged by, and `agreement` for the trimmed model."""
    confidence = 1 - FALSE_PASS / settings.trials
    return GateSettings(
        default=Gates(),
        trim=Gates(agreement=agreement),
        export=Gates(
            accuracy=None
            if settings.max_drop is None
            else AccuracyGate(max_loss=settings.max_drop, confidence=confidence),
            speed=SpeedGate(max_ms=settings.max_latency),
            size=None if settings.max_size is None else SizeGate(max_mb=settings.max_size),
        ),
    )


def grow(
    state: Run, root: Made, teacher: StageResult, settings: SearchSettings, *, trial: Trial, clock: Clock, room: int
) -> Growth:
    """Return the levels of one family, each pruned from the one before and finished into a bundle; the first is cut as
    far as suits that there is time for `room` of them.
    """
    points: list[StageResult] = []
    computed: list[str] = []

    def ended(why: str, *, late: bool = False) -> Growth:
        return Growth(tuple(points), tuple(computed), why + shortened, late)

    prefix = f"trial-{trial.number}-" if settings.trials > 1 else ""
    folder = state.ledger.directory / trial.folder
    levels, ahead, shortened = 0, 1.0, ""
    for result, anew, following in _points(state, root, teacher, folder, prefix, clock, room):
        clock.keep()
        points.append(result)
        computed += [result.stage] * anew
        if ahead < 1:
            shortened += SHORTENED.format(result.stage, ahead, settings.minutes)
        ahead = following
        if _changed(result):
            return ended("trimming changes too many answers on texts from elsewhere")
        levels += _is_bundle(result)
        if _lost(result):
            return ended(f"{result.stage} loses more than {settings.max_drop:g} points")
        if _modest(settings) and _passed(result):
            return ended(f"{result.stage} is as fast and as small as asked")
        if levels >= settings.levels:
            return ended(f"{levels} levels were asked for")
        if not ahead:
            return ended(f"the next level would not end within {settings.minutes:g} minutes", late=True)
    return ended("nothing more can be removed")


def choose(points: Sequence[StageResult], settings: SearchSettings) -> StageResult | None:
    """Return the point to hand over: the fastest that passed or, with a bound on latency or size, the most accurate."""
    passed = [point for point in points if _passed(point)]
    if not passed:
        return None
    if _modest(settings):
        better = 1 if passed[0].validation.higher_is_better else -1
        return max(passed, key=lambda point: better * point.validation.estimate)
    return max(passed, key=_speedup)


def _points(
    state: Run, root: Made, teacher: StageResult, folder: Path, prefix: str, clock: Clock, room: int
) -> Iterator[tuple[StageResult, bool, float]]:
    """Yield what was measured of the trimmed model, where there are texts from elsewhere to judge it on, and of every
    level until nothing is left to remove; whether anything was computed for it; and the share of the recipe's trainings
    that there is time for in the next level, 0 where there is too little.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parent, recipe, anew, level = root, state.recipe, False, 0
    if recipe.distill is not None:
        parent = make_stage(state, folder / "0-distill", DISTILL, recipe.distill, parent)
        anew = parent.computed
    if recipe.trim is not None:
        # First, so that every level learns the new cuts of rare words.
        whole, parent = parent, make_stage(state, folder / "0-trim", TRIM, recipe.trim, parent)
        anew |= parent.computed
        if FOREIGN in state.inputs.tables:
            yield judged(state, parent, TRIM.name, teacher, parent=whole, name=f"{prefix}trimmed"), anew, 1.0
            anew = False
    assert recipe.prune is not None
    cuts = _trains(recipe)  # else what is not cut at all is the mildest level
    step, share = first_step(recipe, room) if cuts else recipe.prune, 1.0
    while True:
        began, took = time.monotonic(), 0.0
        if cuts:
            level += 1
            try:
                parent = make_stage(state, folder / f"{level}-prune", PRUNE, step, parent)
            except Unreachable:
                return
            took = _told_seconds(parent)
        made, anew, cuts = parent, anew or parent.computed, True
        for stage in FINISHING:
            settings = getattr(recipe, stage.name)
            if settings is not None:
                made = make_stage(state, folder / f"{level}-{stage.name}", stage, settings, made)
                anew |= made.computed
                took += _told_seconds(made)
        result = judged(state, made, EXPORT.name, teacher, name=f"{prefix}level-{level}")
        took += time.monotonic() - began
        name = f"share-{digest_of([parent.record.digest, recipe.prune.model_dump(mode='json')])[:12]}"
        ahead = clock.trials.known(name)  # of a level that was begun, which is finished however late it is
        if ahead is None:
            there = is_made(state, folder / f"{level + 1}-{PRUNE.name}", PRUNE, recipe.prune, parent)
            ahead = 1.0 if there else _share_ahead(recipe, parent, clock, took=took, share=share)
        yield result, anew, ahead
        clock.trials.remember(name, ahead)
        step, share, anew = _next_step(recipe, ahead), ahead, False


def first_step(recipe: Recipe, room: int) -> PruneSettings:
    """Return the settings of the first level that is cut. Where there is time for one it has everything to learn, and
    goes as far as one may in one training; where there is time for several, the middle one gets there.
    """
    assert recipe.prune is not None
    assert recipe.search is not None
    first = recipe.search.first_speedup
    if first == "goal":
        points = 1.0 if recipe.search.max_drop is None else recipe.search.max_drop
        goal, step = min(FARTHEST, AT_NONE + BY_POINT * points), recipe.prune.speedup
        # Of two digits, so that a search which goes on with another goal can name it.
        first = round(goal if step is None else max(goal / step ** ((room - 1) // 2), min(goal, step)), 2)
    return recipe.prune if first is None else recipe.prune.model_copy(update={"speedup": first})


def _next_step(recipe: Recipe, share: float) -> PruneSettings:
    """Return the settings of a level after the first, whose trainings are so many times as long."""
    step = scaled(recipe, share).prune
    assert step is not None
    return step


def _trains(recipe: Recipe) -> bool:
    """Return whether anything is trained, so that a level may be better than the model that it was cut from."""
    assert recipe.prune is not None
    return recipe.distill is not None or recipe.prune.recovery.epochs > 0 or recipe.prune.round_epochs > 0


def _share_ahead(recipe: Recipe, pruned: Made, clock: Clock, *, took: float, share: float) -> float:
    """Return the share of the recipe's trainings that there is time for in the level after one of `share`, which `took`
    so many seconds. Families do not shorten theirs at one another's expense.
    """
    assert recipe.search is not None
    trained = 0.0
    if recipe.search.fit and recipe.search.trials == 1:
        details = pruned.record.details
        told = [*details.get("rounds", ()), details]  # of a model that was not cut there is nothing
        trained = sum(float(one["training"]["seconds"]) for one in told if "training" in one)
    return share_left(clock.left(recipe.search.minutes), took=took, trained=trained, share=share)


def _told_seconds(made: Made) -> float:
    """Return how long an artifact took that this call has not computed, which its own clock sees nothing of."""
    return 0.0 if made.computed else float(made.record.details["seconds"])


def _settings(recipe: Recipe) -> SearchSettings:
    missing = [name for name in ("search", "prune", "export") if getattr(recipe, name) is None]
    if missing:
        raise BadInput(f"the recipe has no {' and no '.join(missing)}", where=recipe.name, fix="See `compress search`.")
    assert recipe.search is not None
    assert recipe.prune is not None
    if recipe.search.first_speedup is not None and recipe.prune.speedup is None:
        raise BadInput(
            "levels are pruned by a share of the weights", where="search.first_speedup", fix="Set it to null."
        )
    return recipe.search


def _trained(state: Run, root: Made) -> str:
    """Return a name that searches share which train the same models, whatever they look for among them."""
    trainings = [one and one.model_dump(mode="json") for one in (state.recipe.distill, state.recipe.prune)]
    return digest_of([trainings, state.recipe.seed, root.record.digest, state.inputs.ensemble_digest])[:12]


def _study(state: Run, root: Made) -> str:
    """Return a name that only searches for the same thing share, wherever their files are."""
    recipe = state.recipe
    elsewhere = {"name", "teacher", "ensemble", "data", "threads"}
    plain = recipe.model_dump(mode="json", exclude=elsewhere)
    plain["search"] = {
        key: value for key, value in plain["search"].items() if key not in ("minutes", "trials", "storage")
    }
    return f"{recipe.name}-{digest_of([plain, root.record.digest, state.inputs.ensemble_digest])[:12]}"


def _of(state: Run, trial: Trial, share: float) -> Run:
    """Return the run with the trial's keys in its recipe, and trainings so many times as long."""
    value = merged(state.recipe.model_dump(mode="json"), trial.keys)
    return replace(state, recipe=scaled(make_recipe(value, where="search.space"), share))


def _told(state: Run, root: Made, teacher: StageResult, grown: Sequence[Growth], share: float) -> RunResult:
    settings = _settings(state.recipe)
    points = [point for growth in grown for point in growth.points]
    chosen = choose(points, settings)
    computed = [TEACHER] * root.computed + [name for growth in grown for name in growth.computed]
    told = summary(state, [teacher, *points], computed)
    length = SCALED.format(share, settings.minutes) if share != 1 else ""
    update = {
        "passed": chosen is not None,
        "chosen": None if chosen is None else chosen.stage,
        "notes": [growth.ended + length for growth in grown],
    }
    return told.model_copy(update=update)


def _score(points: Sequence[StageResult]) -> float:
    """Return how good a family is: the speed-up of its fastest point that passed, 0 where none did."""
    return max((_speedup(point) for point in points if _passed(point)), default=0.0)


def _modest(settings: SearchSettings) -> bool:
    """Return whether a model need only be fast or small enough, not as fast as can be."""
    return settings.max_latency is not None or settings.max_size is not None


def _is_bundle(result: StageResult) -> bool:
    """Return whether a point is a level, and not the trimmed model that it began with."""
    return any(verdict.gate == "speed" for verdict in result.verdicts)


def _passed(result: StageResult) -> bool:
    return _is_bundle(result) and all(verdict.passed for verdict in result.verdicts)


def _changed(result: StageResult) -> bool:
    return any(verdict.gate == "agreement" and not verdict.passed for verdict in result.verdicts)


def _lost(result: StageResult) -> bool:
    return any(verdict.gate == "accuracy" and not verdict.passed for verdict in result.verdicts)


def _speedup(result: StageResult) -> float:
    return next(verdict.estimate for verdict in result.verdicts if verdict.gate == "speed")
