from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import tiny_checkpoint
from support.networks import tiny_shape
from support.pruning import by_path, scores_of

from compress.pruning.importance import Scores
from compress.pruning.search import Choice, CostOf, Costs, search, weight_costs, widths
from models.errors import BadInput
from models.shape import LayerShape

SCORE = st.integers(0, 50)
STEP = st.integers(0, 6)


def costs_of(fixed: float, heads: Sequence[CostOf], neurons: Sequence[CostOf]) -> Costs:
    return Costs(fixed, by_path(heads, neurons))


def heads_of(choice: Choice) -> list[int]:
    return [len(units) for path, units in choice.plan.kept.items() if path.endswith("attention")]


@st.composite
def problems(draw: st.DrawFn) -> tuple[Scores, Costs, float]:
    """Two layers of up to 3 heads and 3 neurons, whole costs that rise with the kept count, and a budget."""

    def side() -> tuple[list[np.ndarray], list[dict[int, float]]]:
        sizes = [draw(st.integers(1, 3)) for _ in range(2)]
        scores = [np.array([float(draw(SCORE)) for _ in range(size)]) for size in sizes]
        costs = []
        for size in sizes:
            steps = np.cumsum([0, *(draw(STEP) for _ in range(size))])
            costs.append({count: float(steps[count]) for count in range(size + 1)})
        return scores, costs

    (heads, head_costs), (neurons, neuron_costs) = side(), side()
    costs = costs_of(float(draw(STEP)), head_costs, neuron_costs)
    return scores_of(heads, neurons), costs, float(draw(st.integers(0, 60)))


def brute_force(scores: Scores, costs: Costs, budget: float, *, least: int) -> float | None:
    """Return the least loss over all kept counts from `least` up, or None where nothing fits."""
    sublayers = [(scores[path], table) for path, table in costs.units.items()]
    best = None
    for counts in itertools.product(*(range(least, len(values) + 1) for values, _ in sublayers)):
        cost = costs.fixed + sum(table[count] for count, (_, table) in zip(counts, sublayers, strict=True))
        lost = sum(
            sum(sorted(values)[: len(values) - count]) for count, (values, _) in zip(counts, sublayers, strict=True)
        )
        if cost <= budget and (best is None or lost < best):
            best = lost
    return best


@settings(max_examples=150, deadline=None)
@given(problems(), st.booleans())
def test_search_equals_brute_force_and_keeps_the_budget(problem: tuple[Scores, Costs, float], removable: bool) -> None:
    scores, costs, budget = problem
    best = None if removable else brute_force(scores, costs, budget, least=1)
    if best is None:
        best = brute_force(scores, costs, budget, least=0)
    if best is None:
        with pytest.raises(BadInput, match="remain without any head"):
            search(scores, costs, budget, unit="ms", removable=removable)
        return
    choice = search(scores, costs, budget, unit="ms", removable=removable)
    kept = choice.plan.kept
    layers = tuple(LayerShape(len(kept[f"layers.{k}.attention"]), 1, len(kept[f"layers.{k}.ffn"])) for k in range(2))
    assert choice.lost == pytest.approx(best)
    assert choice.cost == pytest.approx(costs.of(tiny_shape(layers)))
    assert choice.cost <= budget + 1e-9
    removed = [sum(values) - sum(values[list(kept[path])]) for path, values in scores.items()]
    assert sum(removed) == pytest.approx(choice.lost)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1.0))
def test_budget_is_never_exceeded_with_odd_costs(seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    heads = tuple(dict(enumerate(np.cumsum([0.0, *random.random(4)]))) for _ in range(3))
    neurons = tuple(dict(enumerate(np.cumsum([0.0, *random.random(5)]))) for _ in range(3))
    scores = scores_of([random.random(4) for _ in range(3)], [random.random(5) for _ in range(3)])
    costs = costs_of(0.1, heads, neurons)
    whole = costs.of(tiny_shape((LayerShape(4, 1, 5),) * 3))
    budget = costs.fixed + (whole - costs.fixed) * share
    assert search(scores, costs, budget, unit="ms").cost <= budget * (1 + 1e-7)


def test_sublayers_go_whole_only_where_they_must() -> None:
    scores = scores_of((np.array([9.0, 9.0]), np.array([0.0, 0.0])), (np.array([5.0]), np.array([5.0])))
    costs = costs_of(0.0, ({0: 0, 1: 1, 2: 2},) * 2, ({0: 0, 1: 1},) * 2)
    assert heads_of(search(scores, costs, 5, unit="ms")) == [2, 1]
    assert heads_of(search(scores, costs, 3, unit="ms")) == [2, 0]


def test_removable_sublayers_go_where_their_last_unit_costs_more_than_it_is_worth() -> None:
    scores = scores_of((np.array([9.0, 9.0]), np.array([2.0, 2.0])), (np.array([5.0]), np.array([5.0])))
    costs = costs_of(0.0, ({0: 0, 1: 4, 2: 5},) * 2, ({0: 0, 1: 1},) * 2)
    kept, removed = (search(scores, costs, 11, unit="ms", removable=free) for free in (False, True))
    assert (heads_of(kept), heads_of(removed)) == ([2, 1], [2, 1])
    kept, removed = (search(scores, costs, 10, unit="ms", removable=free) for free in (False, True))
    assert (heads_of(kept), heads_of(removed)) == ([1, 1], [2, 0])


def test_widths_are_multiples_and_the_full_width() -> None:
    assert widths(1536, 512) == [0, 512, 1024, 1536]
    assert widths(100, 64) == [0, 64, 100]
    assert widths(40, 64) == [0, 40]


def test_weight_costs_are_the_weights() -> None:
    for layers in ((LayerShape(4, 8, 48), LayerShape(2, 8, 20)), (LayerShape(0, 8, 3), LayerShape(1, 8, 0))):
        checkpoint = tiny_checkpoint(layers)
        encoder = sum(weight.numel() for name, weight in checkpoint.weights.items() if name.startswith("layers."))
        costs = weight_costs(checkpoint, ffn_multiple=1)
        assert costs.of(checkpoint.shape) == encoder
        smaller = tiny_checkpoint((LayerShape(0, 8, 2), LayerShape(1, 8, 0)))
        wanted = sum(weight.numel() for name, weight in smaller.weights.items() if name.startswith("layers."))
        assert costs.of(smaller.shape) == wanted
