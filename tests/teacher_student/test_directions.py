"""A smaller embedding: the teacher's main directions, and what is learnt in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.examples import random_rows, tiny_checkpoint, tiny_context
from torch.nn.functional import normalize

from compress.settings import ArchitectureSettings, DistillSettings, LossSettings
from compress.stages.distill import DISTILL, plan
from models.checkpoint import Checkpoint
from models.errors import BadInput
from models.evaluation import evaluate_logits
from models.kinds import Reads
from models.shape import HeadShape
from models.tasks import task_named
from teacher_student.directions import in_directions_of, in_main_directions, principal_directions
from teacher_student.student import StudentPlan, build_student

HEAD = HeadShape((), task="sentence-embedding", reads=Reads.MEAN, width=32, normalized=True)
COSINES = LossSettings(mse=0.0, kl=1.0)


def student_of(teacher: Checkpoint, numbers: int) -> Checkpoint:
    made = plan(teacher.shape, DistillSettings(layers=2, dimensions=numbers))
    student, _ = in_main_directions(build_student(teacher, made, seed=0), teacher, random_rows(200), seed=0)
    return student


def cosines(checkpoint: Checkpoint) -> torch.Tensor:
    each = normalize(torch.from_numpy(evaluate_logits(checkpoint.network(), random_rows(200))), dim=-1)
    return each @ each.T


def test_directions_are_sorted_and_at_right_angles() -> None:
    torch.manual_seed(0)
    rows = normalize(torch.randn(500, 6).double() * torch.tensor([5.0, 1, 3, 0.2, 2, 0.1]), dim=-1)
    directions, shares = principal_directions(rows)
    torch.testing.assert_close(directions @ directions.T, torch.eye(6).double())
    assert shares.tolist() == sorted(shares.tolist(), reverse=True)
    torch.testing.assert_close(shares, (rows @ directions.T).square().sum(dim=0) / len(rows))
    assert directions.abs().argmax(dim=1).tolist()[:3] == [0, 2, 4]
    assert (directions.gather(1, directions.abs().argmax(dim=1, keepdim=True)) > 0).all()
    wanted = rows @ rows.T  # no other directions keep the products better

    def lost(chosen: torch.Tensor) -> float:
        return float((wanted - (rows @ chosen.T) @ (rows @ chosen.T).T).square().sum())

    for _ in range(20):
        others = torch.linalg.qr(torch.randn(6, 3).double()).Q.T
        assert lost(directions[:3]) <= lost(others)


def test_all_directions_keep_every_cosine_and_fewer_the_larger_part() -> None:
    teacher = tiny_checkpoint(head=HEAD)
    wanted = cosines(teacher)
    torch.testing.assert_close(cosines(student_of(teacher, 32)), wanted, atol=1e-5, rtol=0)
    errors = [float((cosines(student_of(teacher, numbers)) - wanted).abs().mean()) for numbers in (16, 8, 2)]
    assert errors[0] < 0.02
    assert errors == sorted(errors)


def test_a_cut_of_a_cut_is_the_cut() -> None:
    teacher = tiny_checkpoint(head=HEAD)
    twelve, five = student_of(teacher, 12), student_of(teacher, 5)
    for name in ("weight", "bias"):
        torch.testing.assert_close(twelve.projection()[name][:5], five.projection()[name])
    of_twelve = student_of(twelve, 5)  # of a teacher that is projected itself
    torch.testing.assert_close(cosines(of_twelve), cosines(five), atol=0.05, rtol=0)
    assert of_twelve.projection()["weight"].shape == (5, 32)


def test_the_teacher_answers_in_the_directions_of_its_student() -> None:
    teacher = tiny_checkpoint(head=HEAD)
    student = student_of(teacher, 12)
    alike = in_directions_of(student, teacher)
    rows = random_rows(20)
    np.testing.assert_allclose(
        evaluate_logits(alike.network(), rows), evaluate_logits(student.network(), rows), atol=1e-6
    )
    assert in_directions_of(teacher, teacher) is teacher


@pytest.mark.parametrize("losses", [COSINES, LossSettings(mse=1.0), LossSettings(mse=0.0, kl=1.0, hidden=0.1)], ids=str)
def test_a_student_learns_fewer_numbers(losses: LossSettings, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    teacher = tiny_checkpoint(head=HEAD)
    context = replace(
        tiny_context(tmp_path, teacher, train=random_rows(64, labels=0)), task=task_named("sentence-embedding")
    )
    settings = DistillSettings(
        layers=1, dimensions=12, epochs=6, batch_size=16, learning_rate=3e-3, dropout=0.0, losses=losses
    )
    output = DISTILL.run(teacher, settings, context)
    assert output.product.shape.outputs == 12
    assert 0.5 < output.details["embedding_kept"] < 1
    made = plan(teacher.shape, settings)
    fresh, _ = in_main_directions(build_student(teacher, made, seed=0), teacher, random_rows(64, labels=0), seed=0)
    assert all(
        np.array_equal(output.product.projection()[name], fresh.projection()[name]) for name in fresh.projection()
    )
    wanted = cosines(teacher)
    errors = [float((cosines(one) - wanted).square().mean()) for one in (output.product, fresh)]
    assert errors[0] < 0.7 * errors[1]


def test_a_student_of_another_width_learns_cosines_alone(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    teacher = tiny_checkpoint(head=HEAD)
    context = replace(
        tiny_context(tmp_path, teacher, train=random_rows(64, labels=0)), task=task_named("sentence-embedding")
    )
    own = ArchitectureSettings(layers=1, hidden_size=16, heads=2, ffn=24)
    settings = DistillSettings(
        architecture=own, epochs=8, batch_size=16, learning_rate=3e-3, dropout=0.0, losses=COSINES
    )
    learnt = DISTILL.run(teacher, settings, context).product
    assert (learnt.shape.outputs, learnt.projection()) == (16, {})
    fresh = build_student(teacher, plan(teacher.shape, settings), seed=0)
    errors = [float((cosines(one) - cosines(teacher)).square().mean()) for one in (learnt, fresh)]
    assert errors[0] < 0.5 * errors[1]
    narrow = settings.model_copy(update={"dimensions": 6})
    assert DISTILL.run(teacher, narrow, context).product.shape.outputs == 6
    each = settings.model_copy(update={"losses": LossSettings(mse=1.0)})
    with pytest.raises(BadInput, match=r"losses\.mse: .*16 numbers and its teacher's 32.*mse: 0, kl: 1"):
        DISTILL.run(teacher, each, context)


@pytest.mark.parametrize(
    ("changes", "says"),
    [({}, "only a sentence embedding has dimensions"), ({"head": HEAD}, "33 numbers of an embedding that has 32")],
)
def test_dimensions_that_are_not_there(changes: dict[str, HeadShape], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        plan(tiny_checkpoint(**changes).shape, DistillSettings(layers=1, dimensions=33))
    assert isinstance(plan(tiny_checkpoint(head=HEAD).shape, DistillSettings(layers=1)), StudentPlan)
