"""Remove heads and FFN neurons until a target is met, then recover by distillation from the teacher."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

from compress.curvature import curvature
from compress.lessons import lessons_of, schedule_of, weights_of
from compress.pruning.compensation import compensated
from compress.pruning.importance import Scores, score_units
from compress.pruning.latency_table import Clock
from compress.pruning.plan import Plan
from compress.pruning.search import Choice, Costs, search, weight_costs, weights_of_layers
from compress.pruning.surgery import prune as cut
from compress.pruning.writing_table import TextClock
from compress.settings import PruneSettings
from compress.stage import Context, Output, Stage
from models.checkpoint import Checkpoint
from models.files import new_directory, read_object, write_json
from models.shape import ModelShape
from models.sublayers import sublayers_of
from teacher_student.distillation import distill
from teacher_student.student import with_dropout

CORRECTIONS = 3
SHORT = 0.99  # of the wanted speed-up: within the noise of the measurement
LONG = 1.05
LEAST_GROWTH, MOST_GROWTH = 0.2, 5.0  # beyond, it is noise
MILDER = 0.7
LEAST_GAIN = 0.05
ROUND_FILE = "round.json"

Cut = tuple[Plan, Checkpoint, dict[str, Any]]  # what is kept, the smaller model, and what is told of it


@final
@dataclass(frozen=True, slots=True)
class Target:
    """What a model may cost: `costs` of the stage's input, the unit, and the budget after each round; and whether whole
    sublayers may go for it wherever that loses least.
    """

    costs: Costs
    unit: str
    whole: float
    budgets: tuple[float, ...]
    removable: bool

    def speedup(self, choice: Choice) -> float:
        """Return how many times as fast as the stage's input a choice is by the table."""
        return self.whole / choice.cost


def run(parent: Checkpoint, settings: PruneSettings, context: Context) -> Output[Checkpoint]:
    """Return the pruned and recovered checkpoint.

    Each round scores, searches, cuts, compensates and recovers shortly; the target is approached geometrically. A
    speed-up is confirmed on the emitted graphs before the last recovery. Finished rounds are kept in the scratch
    directory.

    Raises:
        BadInput: a quantized model, or one that neither answers nor writes.
        Unreachable: a target that no plan reaches.
    """
    clock = _clock(parent, settings, context)
    target = target_of(parent, settings, clock)
    model, rounds = _begun(parent, settings), []
    for number in range(1, settings.rounds + 1):
        model, told = _round(parent, model, number, settings, target, context, clock)
        rounds.append(told)
    details: dict[str, Any] = {"rounds": rounds, "parent": layers_of(parent.shape)}
    details |= {key: value for key, value in rounds[-1].items() if key != "training"}
    if settings.recovery.epochs > 0:
        lessons = lessons_of(
            context, context.scratch / "recovery", student=model, settings=settings.recovery, select=True
        )
        model, history = distill(
            context.teacher,
            model,
            lessons=lessons,
            weights=weights_of(settings.recovery.losses),
            schedule=schedule_of(settings.recovery),
        )
        details["training"] = history.to_json()
    return Output(model, details)


def milder(settings: PruneSettings, details: dict[str, Any]) -> PruneSettings | None:
    """Return settings that remove less: 0.7 of the gain, as long as it is worth a round."""
    if settings.speedup is not None:
        gain = (settings.speedup - 1) * MILDER
        return None if gain < LEAST_GAIN else settings.model_copy(update={"speedup": round(1 + gain, 4)})
    share = (settings.sparsity or 0.0) * MILDER
    return None if share < LEAST_GAIN else settings.model_copy(update={"sparsity": round(share, 4)})


def target_of(parent: Checkpoint, settings: PruneSettings, clock: Clock | TextClock) -> Target:
    """Return the budgets of the rounds, in ms of the measured table or in weights of the layers."""
    if settings.speedup is not None:
        costs, unit = clock.costs(parent.shape, ffn_multiple=settings.ffn_multiple), "ms"
        whole, factor = costs.of(parent.shape), settings.speedup
    else:
        costs, unit = weight_costs(_begun(parent, settings), ffn_multiple=settings.ffn_multiple), "weights"
        whole, factor = weights_of_layers(parent), 1 / (1 - (settings.sparsity or 0.0))
    steps = tuple(whole / factor ** (number / settings.rounds) for number in range(1, settings.rounds + 1))
    return Target(costs, unit, whole, steps, removable=settings.sublayers == "removable")


def _clock(parent: Checkpoint, settings: PruneSettings, context: Context) -> Clock | TextClock:
    """Return what measures a speed-up: of an answer, or of a text of what writes."""
    int8 = settings.arithmetic == "int8"
    clock = Clock(context.train, context.threads, context.cache, int8=int8, progress=context.progress)
    timed_by_texts = settings.speedup is not None and parent.shape.output is not None
    return TextClock.of(parent, clock) if timed_by_texts else clock


def layers_of(shape: ModelShape) -> dict[str, list[int]]:
    """Return the kept heads and the FFN width of every layer; those that write behind an encoder apart."""
    told = {"heads": [layer.heads for layer in shape.layers], "ffn": [layer.ffn for layer in shape.layers]}
    if shape.decoder is None:
        return told
    return told | {
        "decoder_heads": [layer.heads for layer in shape.decoder.layers],
        "cross_heads": [layer.cross_heads or 0 for layer in shape.decoder.layers],
        "decoder_ffn": [layer.ffn for layer in shape.decoder.layers],
    }


def _begun(parent: Checkpoint, settings: PruneSettings) -> Checkpoint:
    """Return what the first round cuts, as it will be trained: what makes up for a removed unit needs a bias."""
    begun = with_dropout(parent, settings.recovery.dropout)
    return begun.with_biases() if settings.compensate else begun


def _round(
    parent: Checkpoint,
    model: Checkpoint,
    number: int,
    settings: PruneSettings,
    target: Target,
    context: Context,
    clock: Clock | TextClock,
) -> tuple[Checkpoint, dict[str, Any]]:
    """Return the model after one round and what happened, from the scratch directory where it is finished."""
    last = number == settings.rounds

    def cut_out() -> tuple[Checkpoint, dict[str, Any]]:
        scores = score_units(
            model,
            context.train,
            context.task,
            examples=settings.examples,
            seed=context.seed + number,
            progress=context.progress,
        )
        costs = _costs_of(target.costs, model)
        if last and settings.speedup is not None:
            found = _confirmed(parent, model, scores, costs, target, settings.speedup, clock)
        else:
            choice = search(scores, costs, target.budgets[number - 1], unit=target.unit, removable=target.removable)
            found = choice.plan, cut(model, choice.plan), _told(choice, target, model)
        return _compensated(model, found, number, settings, context)

    def recovered() -> tuple[Checkpoint, dict[str, Any]]:
        smaller, told = _kept(context.scratch / f"cut-{number}", cut_out)
        if last or settings.round_epochs == 0 or smaller.shape == model.shape:
            return smaller, told
        trained, history = distill(
            context.teacher,
            smaller,
            lessons=lessons_of(
                context,
                context.scratch / f"training-{number}",
                student=smaller,
                settings=settings.recovery,
                select=False,
            ),
            weights=weights_of(settings.recovery.losses),
            schedule=schedule_of(settings.recovery, epochs=settings.round_epochs),
        )
        return trained, told | {"training": history.to_json()}

    return _kept(context.scratch / f"round-{number}", recovered)


def _compensated(
    model: Checkpoint, found: Cut, number: int, settings: PruneSettings, context: Context
) -> tuple[Checkpoint, dict[str, Any]]:
    """Return what was cut, its output projections updated where the settings ask for that, and what is told of it."""
    plan, smaller, told = found
    if not settings.compensate or smaller.shape == model.shape:
        return smaller, told
    known = curvature(
        model,
        [sublayer.reader for sublayer in sublayers_of(model.shape)],
        context.train,
        examples=settings.examples,
        seed=context.seed + number,
        progress=context.progress,
    )
    return compensated(model, plan, smaller, known), told


def _costs_of(costs: Costs, model: Checkpoint) -> Costs:
    """Return the costs of a model that was pruned before: those of the counts that it still has."""
    units = {
        sublayer.path: {count: cost for count, cost in costs.units[sublayer.path].items() if count <= sublayer.units}
        for sublayer in sublayers_of(model.shape)
    }
    return Costs(costs.fixed, units)


def _told(choice: Choice, target: Target, model: Checkpoint) -> dict[str, Any]:
    key = "predicted_speedup" if target.unit == "ms" else "predicted_sparsity"
    gain = target.speedup(choice) if target.unit == "ms" else 1 - choice.cost / target.whole
    return {
        **layers_of(choice.plan.shape_of(model.shape)),
        key: gain,
        "lost_importance": choice.lost,
    }


def _confirmed(
    parent: Checkpoint,
    model: Checkpoint,
    scores: Scores,
    costs: Costs,
    target: Target,
    wanted: float,
    clock: Clock | TextClock,
) -> Cut:
    """Return the cut model that is as fast as wanted, with the least loss of importance.

    The table predicts sublayers one by one; what they cost together is measured on the emitted graphs. One measurement
    may be a tenth off: all that were tried say together how speed-ups grow with predicted ones, and the budget is
    corrected by that until the last plan has the wanted one. Where no plan has it the fastest is returned.
    """
    budget = target.budgets[-1]
    tried: list[_Tried] = []
    for _ in range(1 + CORRECTIONS):
        choice = search(scores, costs, budget, unit=target.unit, removable=target.removable)
        candidate = cut(model, choice.plan)
        if any(candidate.shape == earlier.smaller.shape for earlier in tried):
            break
        tried.append(_Tried(choice, candidate, target.speedup(choice), clock.speedup(parent, candidate)))
        growth = _growth(tried)
        if wanted * SHORT <= tried[-1].predicted ** growth <= wanted * LONG:
            break
        budget = max(target.whole / wanted ** (1 / growth), costs.least)
    enough = [one for one in tried if one.predicted**growth >= wanted * SHORT]
    best = min(enough, key=lambda one: one.choice.lost) if enough else max(tried, key=lambda one: one.predicted)
    told = _told(best.choice, target, model)
    told |= {"measured_speedup": best.measured, "speedups_tried": [one.measured for one in tried]}
    return best.choice.plan, best.smaller, told


class _Tried(NamedTuple):
    """A plan, what it leaves, and its speed-up as the table predicts it and as it was measured."""

    choice: Choice
    smaller: Checkpoint
    predicted: float
    measured: float


def _growth(tried: Sequence[_Tried]) -> float:
    """Return the power of predicted speed-ups that is nearest to those that were measured: least squares of the
    logarithms, by which what is not cut is not faster, and small cuts, whose gain the noise hides, count little.
    """
    gains = [math.log(one.predicted) for one in tried]
    squares = sum(gain * gain for gain in gains)
    if squares == 0.0:
        return 1.0
    power = sum(gain * math.log(one.measured) for gain, one in zip(gains, tried, strict=True)) / squares
    return min(max(power, LEAST_GROWTH), MOST_GROWTH)


def _kept(place: Path, make: Callable[[], tuple[Checkpoint, dict[str, Any]]]) -> tuple[Checkpoint, dict[str, Any]]:
    """Return what `make` gives, from `place` where an earlier attempt has left it whole."""
    if not place.exists():
        made, told = make()
        with new_directory(place) as directory:
            made.save(directory)
            write_json(directory / ROUND_FILE, told)
    return Checkpoint.load(place), read_object(place / ROUND_FILE)


PRUNE: Stage[PruneSettings, Checkpoint] = Stage("prune", PruneSettings, run, milder)
