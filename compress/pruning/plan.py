"""Which heads and neurons are kept: frozen, and composable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from compress.pruning.importance import Scores, Values
from models.errors import BadInput
from models.shape import ModelShape

Kept = tuple[tuple[int, ...], ...]


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """The kept units of every layer, as ascending indices into the model that the plan is for."""

    heads: Kept
    neurons: Kept

    @staticmethod
    def everything(shape: ModelShape) -> Plan:
        """Return the plan that removes nothing."""
        return Plan(
            tuple(tuple(range(layer.heads)) for layer in shape.layers),
            tuple(tuple(range(layer.ffn)) for layer in shape.layers),
        )

    @staticmethod
    def strongest(scores: Scores, *, heads: Sequence[int], neurons: Sequence[int]) -> Plan:
        """Return the plan that keeps so many heads and neurons per layer, those of the highest scores."""
        return Plan(
            tuple(top(values, count) for values, count in zip(scores.heads, heads, strict=True)),
            tuple(top(values, count) for values, count in zip(scores.neurons, neurons, strict=True)),
        )

    def then(self, later: Plan) -> Plan:
        """Return the one plan that does what this one and then `later`, made for its result, do."""
        return Plan(_composed(self.heads, later.heads), _composed(self.neurons, later.neurons))

    def shape_of(self, shape: ModelShape) -> ModelShape:
        """Return the shape of the pruned model.

        Raises:
            BadInput: the plan is not for a model of this shape.
        """
        self._check(shape)
        layers = tuple(
            replace(layer, heads=len(heads), ffn=len(neurons))
            for layer, heads, neurons in zip(shape.layers, self.heads, self.neurons, strict=True)
        )
        return replace(shape, layers=layers)

    def _check(self, shape: ModelShape) -> None:
        if not len(self.heads) == len(self.neurons) == len(shape.layers):
            raise BadInput(f"a plan for {len(self.heads)} layers, the model has {len(shape.layers)}", where="prune")
        for index, layer in enumerate(shape.layers):
            for name, kept, size in (
                ("heads", self.heads[index], layer.heads),
                ("neurons", self.neurons[index], layer.ffn),
            ):
                ascending = all(left < right for left, right in zip(kept, kept[1:], strict=False))
                if not ascending or (kept and not 0 <= kept[0] <= kept[-1] < size):
                    raise BadInput(f"keeps {name} that are not ascending or not there", where=f"layer {index}")


def top(values: Values, count: int) -> tuple[int, ...]:
    """Return the indices of the `count` highest values, ascending; of equal ones the first."""
    order = np.argsort(-values, kind="stable")[:count]
    return tuple(int(index) for index in np.sort(order))


def _composed(first: Kept, later: Kept) -> Kept:
    return tuple(tuple(outer[index] for index in inner) for outer, inner in zip(first, later, strict=True))
