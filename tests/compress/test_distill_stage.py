"""How many layers a student is given."""

from __future__ import annotations

import pytest
from support.networks import tiny_shape

from compress.settings import DistillSettings
from compress.stages.distill import DISTILL, plan
from models.shape import LayerShape
from teacher_student.student import StudentPlan

TEACHER = tiny_shape((LayerShape(2, 8, 12),) * 6)


@pytest.mark.parametrize(("asked", "kept"), [(3, 3), (0.67, 4), (0.5, 3), (0.01, 1), ((0, 5), 2), (1, 1)])
def test_layers_are_a_number_a_share_or_a_list(asked: object, kept: int) -> None:
    found = plan(TEACHER, DistillSettings(layers=asked))
    assert isinstance(found, StudentPlan)
    assert len(found.shape.layers) == kept


@pytest.mark.parametrize(("asked", "next_"), [(3, 4), (0.5, 4), ((0, 1, 5), 4), (0.9, None)])
def test_a_milder_student_has_one_more_layer(asked: object, next_: int | None) -> None:
    milder = DISTILL.milder(DistillSettings(layers=asked), {"teacher_layers": 6})
    assert (None if milder is None else milder.layers) == next_
