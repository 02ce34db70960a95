"""The fastest model that is still right: a family of models, each pruned from the one before, judged mildest first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import final

from compress.choosing import changed, choose, is_modest, lost, passed, score
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
KEPT_BACK = 0.01  # of that, for a family that begins milder where the first level of the recipe's own lost too much


Way = tuple[Made, ...]  # from the teacher on, each made from the one before


@final
@dataclass(frozen=True, slots=True)
class Growth:
    """One family: what was measured of every level, mildest first, why it ended, and whether only time was short.

    `computed` names the levels of which something was not there yet. `ahead` is the share of the recipe's trainings
    that there is time for where the first level lost too much, else 0.
    """

    points: tuple[StageResult, ...] = ()
    computed: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    late: bool = False
    ahead: float = 0.0

    def then(self, other: Growth) -> Growth:
        """Return both, one behind the other."""
        both = (self.points + other.points, self.computed + other.computed, self.ended + other.ended)
        return Growth(*both, other.late, other.ahead)


@final
@dataclass(frozen=True, slots=True)
class Family:
    """Where levels lie and what they are called; how the first is cut, and the share of the recipe's trainings that it
    gets. `mark` stands before their names and places, `prefix` before their names.
    """

    folder: Path
    mark: str
    prefix: str
    first: PruneSettings
    share: float = 1.0

    def place(self, level: int, stage: str) -> Path:
        """Return the directory of what a stage makes of a level."""
        return self.folder / f"{self.mark}{level}-{stage}"


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
    share of the error (Bonferroni); a search of one keeps a little of it for a family that begins milder, should the
    first level lose too much. A search that was stopped goes on where it was.

    Raises:
        BadInput: the recipe has no search, no prune stage or no export stage.
        CompressError: as the stages, the data and the files raise.
    """
    settings = _settings(recipe)
    began = time.monotonic()
    error = FALSE_PASS / settings.trials - (KEPT_BACK if _may_begin_anew(recipe) else 0.0)
    with opened(
        _judging(recipe, error),
        out=out,
        cache=cache,
        progress=progress,
        on_stage=on_stage,
        wanted_by="a search",
    ) as state:
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
            trials.tell(trial, score(grown[-1].points))
        return concluded(state, _told(state, root, teacher, grown, share))


def goals(settings: SearchSettings, agreement: AgreementGate, *, error: float) -> GateSettings:
    """Return the gates that every level is judged by, with this chance of an `error`, and `agreement` for the trimmed
    model.
    """
    return GateSettings(
        default=Gates(),
        trim=Gates(agreement=agreement),
        export=Gates(
            accuracy=None
            if settings.max_drop is None
            else AccuracyGate(max_loss=settings.max_drop, confidence=1 - error),
            speed=SpeedGate(max_ms=settings.max_latency),
            size=None if settings.max_size is None else SizeGate(max_mb=settings.max_size),
        ),
    )


def grow(
    state: Run, root: Made, teacher: StageResult, settings: SearchSettings, *, trial: Trial, clock: Clock, room: int
) -> Growth:
    """Return the levels of one family, each pruned from the one before and finished into a bundle; the first is cut as
    far as suits that there is time for `room` of them. Where it loses too much and time is left, the levels of another
    family follow that is cut less far, judged with the error that was kept for it.
    """
    folder, prefix = state.ledger.directory / trial.folder, f"trial-{trial.number}-" if settings.trials > 1 else ""
    folder.mkdir(parents=True, exist_ok=True)
    way, begun = _beginning(state, root, teacher, folder, prefix)
    if any(map(changed, begun.points)):
        return begun
    family = Family(folder, "", prefix, first_step(state.recipe, room))
    growth = begun.then(_grown(state, way, teacher, settings, family=family, clock=clock))
    if not _may_begin_anew(state.recipe) or any(map(passed, growth.points)):
        return growth
    first = PRUNE.milder(family.first, {})
    if first is None:
        return growth
    name = f"share-{digest_of([way[-1].record.digest, first.model_dump(mode='json')])[:12]}"
    share = clock.trials.known(name) or growth.ahead  # of one that was begun, as it was begun
    if not share:
        return growth
    clock.trials.remember(name, share)
    recovery = _next_step(state.recipe, share)
    first = recovery.model_copy(update={"speedup": first.speedup, "sparsity": first.sparsity})
    milder = replace(family, mark="milder-", first=first, share=share)
    again = replace(state, recipe=_judging(state.recipe, KEPT_BACK))
    return growth.then(_grown(again, way, teacher, settings, family=milder, clock=clock))


def _grown(
    state: Run, way: Way, teacher: StageResult, settings: SearchSettings, *, family: Family, clock: Clock
) -> Growth:
    """Return the levels of one sequence, up to the first that ends it."""
    points: list[StageResult] = []
    computed: list[str] = []
    ahead, shortened = family.share, ""
    for result, anew, following in _levels(state, way, teacher, family, clock):
        clock.keep()
        points.append(result)
        computed += [result.stage] * anew
        if ahead < 1:
            shortened += SHORTENED.format(result.stage, ahead, settings.minutes)
        ahead = following
        ended, late = _end(result, len(points), ahead, settings)
        if ended:
            first_lost = len(points) == 1 and lost(result)
            return Growth(tuple(points), tuple(computed), (ended + shortened,), late, ahead if first_lost else 0.0)
    return Growth(tuple(points), tuple(computed), ("nothing more can be removed" + shortened,))


def _end(result: StageResult, levels: int, ahead: float, settings: SearchSettings) -> tuple[str, bool]:
    """Return why the last of so many levels is the end, nothing where it is not; and whether only time is short."""
    if lost(result):
        return f"{result.stage} loses more than {settings.max_drop:g} points", False
    if is_modest(settings) and passed(result):
        return f"{result.stage} is as fast and as small as asked", False
    if levels >= settings.levels:
        return f"{levels} levels were asked for", False
    if not ahead:
        return f"the next level would not end within {settings.minutes:g} minutes", True
    return "", False


def _beginning(state: Run, root: Made, teacher: StageResult, folder: Path, prefix: str) -> tuple[Way, Growth]:
    """Return the way to the model that the first level is cut from, and what was measured of it: something only where
    it is trimmed and there are texts from elsewhere to judge that on.
    """
    recipe = state.recipe
    way: Way = (root,)
    if recipe.distill is not None:
        way = (*way, make_stage(state, folder / "0-distill", DISTILL, recipe.distill, root))
    if recipe.trim is None:
        return way, Growth()
    # First, so that every level learns the new cuts of rare words.
    whole, trimmed = way[-1], make_stage(state, folder / "0-trim", TRIM, recipe.trim, way[-1])
    if FOREIGN not in state.inputs.tables:
        return (*way, trimmed), Growth()
    result = judged(state, trimmed, TRIM.name, teacher, parent=whole, name=f"{prefix}trimmed", steps=way[1:])
    told = ("trimming changes too many answers on texts from elsewhere",) if changed(result) else ()
    computed = (result.stage,) if whole.computed or trimmed.computed else ()
    return (*way, trimmed), Growth((result,), computed, told)


def _levels(
    state: Run, way: Way, teacher: StageResult, family: Family, clock: Clock
) -> Iterator[tuple[StageResult, bool, float]]:
    """Yield what was measured of every level until nothing is left to remove; whether anything was computed for it; and
    the share of the recipe's trainings that there is time for in the next level, 0 where there is too little.
    """
    recipe, level = state.recipe, 0
    assert recipe.prune is not None
    cuts = _trains(recipe)  # else what is not cut at all is the mildest level
    step, share = family.first, family.share
    while True:
        parent, began, took = way[-1], time.monotonic(), 0.0
        anew = parent.computed and not level
        if cuts:
            level += 1
            try:
                parent = make_stage(state, family.place(level, PRUNE.name), PRUNE, step, parent)
            except Unreachable:
                return
            took = _told_seconds(parent)
            way = (*way, parent)
        made, anew, cuts, steps = parent, anew or parent.computed, True, way[1:]
        for stage in FINISHING:
            settings = getattr(recipe, stage.name)
            if settings is not None:
                made = make_stage(state, family.place(level, stage.name), stage, settings, made)
                steps = (*steps, made)
                anew |= made.computed
                took += _told_seconds(made)
        name = f"{family.prefix}{family.mark}level-{level}"
        result = judged(state, made, EXPORT.name, teacher, name=name, steps=steps[:-1])
        took += time.monotonic() - began
        key = f"share-{digest_of([parent.record.digest, recipe.prune.model_dump(mode='json')])[:12]}"
        ahead = clock.trials.known(key)  # of a level that was begun, which is finished however late it is
        if ahead is None:
            there = is_made(state, family.place(level + 1, PRUNE.name), PRUNE, recipe.prune, parent)
            ahead = 1.0 if there else _share_ahead(recipe, parent, clock, took=took, share=share)
        yield result, anew, ahead
        clock.trials.remember(key, ahead)
        step, share = _next_step(recipe, ahead), ahead


def first_step(recipe: Recipe, room: int) -> PruneSettings:
    """Return the settings of the first level that is cut. Where there is time for one it has everything to learn, and
    goes as far as one may in one training; where there is time for several, the middle one gets there. Where nothing is
    trained it is as any other.
    """
    assert recipe.prune is not None
    assert recipe.search is not None
    if not _trains(recipe):
        return recipe.prune
    first = recipe.search.first_speedup
    if first == "goal":
        points = 1.0 if recipe.search.max_drop is None else recipe.search.max_drop
        goal, step = min(FARTHEST, AT_NONE + BY_POINT * points), recipe.prune.speedup
        # Of two digits, so that a search which goes on with another goal can name it.
        first = round(goal if step is None else max(goal / step ** ((room - 1) // 2), min(goal, step)), 2)
    return recipe.prune if first is None else recipe.prune.model_copy(update={"speedup": first})


def _judging(recipe: Recipe, error: float) -> Recipe:
    """Return the recipe with the gates of a search that may err so often."""
    settings = _settings(recipe)
    return recipe.model_copy(update={"gates": goals(settings, recipe.gates.of(TRIM.name).agreement, error=error)})


def _may_begin_anew(recipe: Recipe) -> bool:
    """Return whether a first level that loses too much may be followed by a milder one: if there are milder ones, and
    no other families.
    """
    return _settings(recipe).trials == 1 and _trains(recipe)


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
        "notes": ["; ".join(growth.ended) + length for growth in grown],
    }
    return told.model_copy(update=update)
