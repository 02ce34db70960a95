"""How many units each sublayer keeps: the least loss of importance that fits a budget (ZipLM's knapsack, SPDY's DP)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt

from compress.pruning.importance import Scores, Values
from compress.pruning.plan import Plan
from models.checkpoint import Checkpoint
from models.errors import BadInput
from models.shape import LayerShape

BUCKETS = 10_000
CostOf = Mapping[int, float]  # kept units -> cost


@final
@dataclass(frozen=True, slots=True)
class Costs:
    """What a model costs, in ms or in weights: `fixed`, and per layer what each kept count adds.

    `heads[l]` and `neurons[l]` have an entry for every count that may be kept, 0 and all included.
    """

    fixed: float
    heads: tuple[CostOf, ...]
    neurons: tuple[CostOf, ...]

    def of(self, layers: Sequence[LayerShape]) -> float:
        """Return the cost of a model of these layers."""
        attention = sum(costs[layer.heads] for costs, layer in zip(self.heads, layers, strict=True))
        return self.fixed + attention + sum(costs[layer.ffn] for costs, layer in zip(self.neurons, layers, strict=True))

    @property
    def least(self) -> float:
        """Return the cost of a model that keeps no unit."""
        return self.fixed + sum(min(table.values()) for table in (*self.heads, *self.neurons))


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


def weight_costs(checkpoint: Checkpoint, *, ffn_multiple: int) -> Costs:
    """Return costs in weights of the encoder's layers: a head owns 4 x size x hidden + 3 x size of them, a neuron
    2 x hidden + 1; what no unit owns is fixed.
    """
    shape = checkpoint.shape
    hidden = shape.hidden_size
    costs = Costs(
        fixed=0.0,
        heads=tuple(
            {count: float(count * layer.head_size * (4 * hidden + 3)) for count in range(layer.heads + 1)}
            for layer in shape.layers
        ),
        neurons=tuple(
            {count: float(count * (2 * hidden + 1)) for count in widths(layer.ffn, ffn_multiple)}
            for layer in shape.layers
        ),
    )
    whole = sum(value.numel() for name, value in checkpoint.weights.items() if name.startswith("layers."))
    return replace(costs, fixed=whole - costs.of(shape.layers))


def search(scores: Scores, costs: Costs, budget: float, *, unit: str) -> Choice:
    """Return the plan of least lost importance whose cost is at most `budget`.

    Every sublayer keeps at least one unit as long as any plan can do so within the budget; only else may sublayers go
    whole. Costs are rounded up to 1/10,000 of what may be spent, so the budget is never exceeded.

    Raises:
        BadInput: even the plan that keeps nothing exceeds the budget; `unit` names the cost in the message.
    """
    sublayers = [_levels(values, cost) for values, cost in zip(scores.heads, costs.heads, strict=True)]
    sublayers += [_levels(values, cost) for values, cost in zip(scores.neurons, costs.neurons, strict=True)]
    left = budget - costs.fixed
    kept = [[level for level in levels if level.kept] or levels for levels in sublayers]
    chosen = _knapsack(kept, left) or _knapsack(sublayers, left)
    if chosen is None:
        raise BadInput(
            f"the target leaves {budget:.4g} {unit}, and {costs.least:.4g} {unit} remain without any head and neuron",
            where="prune",
            fix="Lower the target, or distil into fewer layers first.",
        )
    half = len(costs.heads)
    plan = Plan.strongest(
        scores, heads=[level.kept for level in chosen[:half]], neurons=[level.kept for level in chosen[half:]]
    )
    return Choice(plan, costs.fixed + sum(level.cost for level in chosen), sum(level.lost for level in chosen))


def _levels(values: Values, costs: CostOf) -> list[_Level]:
    """Return every kept count that may be chosen, with its cost and the sum of the smallest scores it gives up."""
    given_up = np.concatenate([[0.0], np.cumsum(np.sort(values))])
    return [
        _Level(kept, cost, float(given_up[len(values) - kept])) for kept, cost in costs.items() if kept <= len(values)
    ]


def _knapsack(sublayers: list[list[_Level]], budget: float) -> list[_Level] | None:
    """Return one level per sublayer with the least loss at a cost of at most `budget`, or None where none fits."""
    if budget < 0:
        return None
    step = budget / BUCKETS if budget else 1.0
    least = np.zeros(BUCKETS + 1)  # least loss of the sublayers so far, by buckets that may be spent
    choices: list[npt.NDArray[np.int64]] = []
    for levels in sublayers:
        before, least = least, np.full_like(least, math.inf)
        choice = np.zeros(len(least), dtype=np.int64)
        for number, level in enumerate(levels):
            spent = _buckets(level, step)
            if spent < len(least):
                candidate = np.full_like(least, math.inf)
                candidate[spent:] = before[: len(least) - spent] + level.lost
                choice[candidate < least] = number
                least = np.minimum(least, candidate)
        choices.append(choice)
    if not math.isfinite(least[-1]):
        return None
    left = BUCKETS
    chosen: list[_Level] = []
    for levels, choice in zip(reversed(sublayers), reversed(choices), strict=True):
        chosen.append(levels[int(choice[left])])
        left -= _buckets(chosen[-1], step)
    return chosen[::-1]


def _buckets(level: _Level, step: float) -> int:
    # A quotient that is off by rounding alone must not cost a whole bucket more.
    return max(0, math.ceil(level.cost / step - 1e-6))
