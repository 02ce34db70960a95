"""Which heads and neurons are kept: frozen, and composable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from compress.pruning.importance import Scores, Values
from models.errors import BadInput
from models.shape import ModelShape
from models.sublayers import sublayers_of, with_units

Kept = tuple[int, ...]


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """The kept units of every sublayer, by its path, as ascending indices into the model that the plan is for."""

    kept: Mapping[str, Kept]

    @staticmethod
    def everything(shape: ModelShape) -> Plan:
        """Return the plan that removes nothing."""
        return Plan({sublayer.path: tuple(range(sublayer.units)) for sublayer in sublayers_of(shape)})

    @staticmethod
    def strongest(scores: Scores, counts: Mapping[str, int]) -> Plan:
        """Return the plan that keeps so many units of each sublayer, those of the highest scores."""
        return Plan({path: top(scores[path], count) for path, count in counts.items()})

    def then(self, later: Plan) -> Plan:
        """Return the one plan that does what this one and then `later`, made for its result, do."""
        return Plan({path: tuple(self.kept[path][index] for index in inner) for path, inner in later.kept.items()})

    def shape_of(self, shape: ModelShape) -> ModelShape:
        """Return the shape of the pruned model.

        Raises:
            BadInput: the plan is not for a model of this shape.
        """
        self._check(shape)
        return with_units(shape, {path: len(units) for path, units in self.kept.items()})

    def _check(self, shape: ModelShape) -> None:
        sublayers = sublayers_of(shape)
        other = sorted(set(self.kept) ^ {sublayer.path for sublayer in sublayers})
        if other:
            raise BadInput(f"a plan for another model: {other[0]} is in only one of them", where="prune")
        for sublayer in sublayers:
            kept = self.kept[sublayer.path]
            ascending = all(left < right for left, right in zip(kept, kept[1:], strict=False))
            if not ascending or (kept and not 0 <= kept[0] <= kept[-1] < sublayer.units):
                raise BadInput("keeps units that are not ascending or not there", where=sublayer.path)


def top(values: Values, count: int) -> Kept:
    """Return the indices of the `count` highest values, ascending; of equal ones the first."""
    order = np.argsort(-values, kind="stable")[:count]
    return tuple(int(index) for index in np.sort(order))
