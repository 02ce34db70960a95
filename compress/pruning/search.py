"""How many units each sublayer keeps: the least loss of importance that fits a budget (ZipLM's knapsack, SPDY's DP)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt

from compress.pruning.importance import Scores, Values
from compress.pruning.plan import Plan
from models.checkpoint import Checkpoint
from models.errors import Unreachable
from models.shape import ModelShape
from models.sublayers import Part, Sublayer, sublayers_of

STATES = 4000
ROUNDING = 1e-9
CostOf = Mapping[int, float]  # kept units -> cost


@final
@dataclass(frozen=True, slots=True)
class Costs:
    """What a model costs, in ms or in weights: `fixed`, and what each kept count of a sublayer, by its path, adds.

    A sublayer has an entry for every count that may be kept, 0 and all included.
    """

    fixed: float
    units: Mapping[str, CostOf]

    def of(self, shape: ModelShape) -> float:
        """Return the cost of a model of this shape."""
        return self.fixed + sum(self.units[sublayer.path][sublayer.units] for sublayer in sublayers_of(shape))

    @property
    def least(self) -> float:
        """Return the cost of a model that keeps no unit."""
        return self.fixed + sum(min(table.values()) for table in self.units.values())


class Choice(NamedTuple):
    """What the search found: the plan, its cost, and the summed scores of what it removes."""

    plan: Plan
    cost: float
    lost: float


class _Level(NamedTuple):
    kept: int
    cost: float
    lost: float


def widths(full: int, multiple: int) -> list[int]:
    """Return the FFN widths that may be kept of `full`, ascending: 0, the multiples, and `full` itself."""
    return sorted({*range(0, full + 1, multiple), full})


def counts(sublayer: Sublayer, ffn_multiple: int) -> list[int]:
    """Return how many units of a sublayer may be kept, ascending: any number of heads, and of neurons the widths."""
    return widths(sublayer.units, ffn_multiple if sublayer.part is Part.FFN else 1)


def weight_costs(checkpoint: Checkpoint, *, ffn_multiple: int) -> Costs:
    """Return costs in weights of the layers: a unit owns its share of everything in its sublayer but the bias behind
    it; what no unit owns is fixed.
    """
    weights, shape = checkpoint.weights, checkpoint.shape
    units: dict[str, CostOf] = {}
    for sublayer in sublayers_of(shape):
        own = [name for name in weights if name.startswith(f"{sublayer.path}.") and name != f"{sublayer.reader}.bias"]
        each = sum(weights[name].numel() for name in own) / max(1, sublayer.units)
        units[sublayer.path] = {count: count * each for count in counts(sublayer, ffn_multiple)}
    return Costs(weights_of_layers(checkpoint) - Costs(0.0, units).of(shape), units)


def weights_of_layers(checkpoint: Checkpoint) -> int:
    """Return how many weights the layers have, those that write behind an encoder included."""
    stacks = ("layers.", "decoder.layers.")
    return sum(value.numel() for name, value in checkpoint.weights.items() if name.startswith(stacks))


def search(scores: Scores, costs: Costs, budget: float, *, unit: str, removable: bool = False) -> Choice:
    """Return the plan of least lost importance whose cost is at most `budget`.

    Every sublayer keeps at least one unit as long as any plan can do so within the budget; only else, or where they are
    `removable`, may sublayers go whole. Exact as long as at most STATES combinations are worth keeping; the budget is
    never exceeded.

    Raises:
        Unreachable: even the plan that keeps nothing exceeds the budget; `unit` names the cost in the message.
    """
    sublayers = [_levels(scores[path], costs_of) for path, costs_of in costs.units.items()]
    left = budget - costs.fixed
    kept = [[level for level in levels if level.kept] or levels for levels in sublayers]
    chosen = (None if removable else _knapsack(kept, left)) or _knapsack(sublayers, left)
    if chosen is None:
        raise Unreachable(
            f"the target leaves {budget:.4g} {unit}, and {costs.least:.4g} {unit} remain without any head and neuron",
            where="prune",
            fix="Lower the target, or distil into fewer layers first.",
        )
    kept_units = {path: level.kept for path, level in zip(costs.units, chosen, strict=True)}
    plan = Plan.strongest(scores, kept_units)
    return Choice(plan, costs.fixed + sum(level.cost for level in chosen), sum(level.lost for level in chosen))


def _levels(values: Values, costs: CostOf) -> list[_Level]:
    """Return every kept count that may be chosen, with its cost and the sum of the smallest scores it gives up."""
    given_up = np.concatenate([[0.0], np.cumsum(np.sort(values))])
    return [
        _Level(kept, cost, float(given_up[len(values) - kept])) for kept, cost in costs.items() if kept <= len(values)
    ]


def _knapsack(sublayers: list[list[_Level]], budget: float) -> list[_Level] | None:
    """Return one level per sublayer with the least loss at a cost of at most `budget`, or None where none fits."""
    limit = budget + ROUNDING * abs(budget)  # sums of the same costs in another order may differ by rounding
    rest = sum(min(level.cost for level in levels) for levels in sublayers)
    cost, lost = np.zeros(1), np.zeros(1)  # the states that no other state beats in both
    steps: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    for levels in sublayers:
        rest -= min(level.cost for level in levels)
        costs = (cost[:, None] + np.array([level.cost for level in levels])).ravel()
        losses = (lost[:, None] + np.array([level.lost for level in levels])).ravel()
        kept = _front(costs, losses, limit - rest)
        if len(kept) == 0:
            return None
        cost, lost = costs[kept], losses[kept]
        steps.append((kept // len(levels), kept % len(levels)))
    state = len(cost) - 1  # the dearest that fits has lost the least
    chosen: list[_Level] = []
    for levels, (before, level) in zip(reversed(sublayers), reversed(steps), strict=True):
        chosen.append(levels[int(level[state])])
        state = int(before[state])
    return chosen[::-1]


def _front(costs: Values, losses: Values, limit: float) -> npt.NDArray[np.int64]:
    """Return the indices of the states within `limit` that lose less than every cheaper one, by rising cost.

    Where there are too many, the one that loses least in each of STATES equal spans of cost is kept.
    """
    order = np.lexsort((losses, costs))
    order = order[costs[order] <= limit]
    sorted_losses = losses[order]
    better = np.concatenate([[True], sorted_losses[1:] < np.minimum.accumulate(sorted_losses)[:-1]])
    front: npt.NDArray[np.int64] = order[better[: len(order)]]
    if len(front) > STATES:
        span = np.floor(costs[front] / limit * STATES)
        front = front[np.concatenate([span[1:] != span[:-1], [True]])]
    return front
