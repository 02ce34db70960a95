"""Every task: its targets, its loss beside the formulas of torch, its metric, and what it answers."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from models.data import Table
from models.encoded import labelled
from models.errors import BadInput, Unsupported
from models.summary import contributions
from models.task import Task
from models.tasks import TASKS, task_named

EXAMPLES: dict[str, tuple[list[Any], tuple[str, ...]]] = {
    "text-classification": (["b", "a", "c", "b"], ("a", "b", "c")),
    "multi-label-classification": ([("a",), (), ("c", "a"), "b|c"], ("a", "b", "c")),
    "text-regression": ([0.5, 3, -1.25, 2.0], ("score",)),
}
tasks = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


def table(labels: list[Any] | None) -> Table:
    return Table(["text"] * 4, None, labels, "rows.csv", "0")


def logits_of(task: Task, seed: int = 0) -> torch.Tensor:
    outputs = len(EXAMPLES[task.name][1])
    return torch.randn(4, outputs, generator=torch.Generator().manual_seed(seed))


def test_every_task_has_an_example_and_is_found_by_its_name() -> None:
    assert set(EXAMPLES) == {task.name for task in TASKS}
    assert all(task_named(task.name) is task for task in TASKS)
    with pytest.raises(Unsupported, match="Did you mean 'text-regression'"):
        task_named("text-regresion")


@tasks
def test_labels_become_targets_and_targets_answers(task: Task) -> None:
    rows, labels = EXAMPLES[task.name]
    assert task.labels_of(table(rows)) == labels
    task.check(labels, where="head")
    targets = task.targets(table(rows), labels)
    assert len(targets) == 4
    assert labelled(targets).all()
    # A model that is right scores as high as can be.
    shown = 10 * (2 * np.eye(3)[targets] - 1) if task.metric.classes else np.array(targets).reshape(4, -1)
    right = (2 * shown - 1 if task.several_labels else shown).astype(np.float32)
    assert contributions(task.metric.summary, task.statistics(right, targets)).mean() == pytest.approx(1.0)
    np.testing.assert_array_equal(task.predict(right), targets)
    answers = task.answers(right, labels)
    assert len(answers) == 4
    assert all(answer.text and answer.values for answer in answers)


@tasks
def test_the_loss_is_that_of_the_labelled_rows(task: Task) -> None:
    rows, labels = EXAMPLES[task.name]
    logits, targets = logits_of(task), torch.from_numpy(task.targets(table(rows), labels))
    expected = {
        "text-classification": lambda: cross_entropy(logits, targets),
        "multi-label-classification": lambda: binary_cross_entropy_with_logits(logits, targets),
        "text-regression": lambda: mse_loss(logits[:, 0], targets),
    }[task.name]()
    torch.testing.assert_close(task.loss(logits, targets), expected)
    unlabelled = torch.from_numpy(task.targets(table(None), labels))
    assert not labelled(unlabelled.numpy()).any()
    mixed = torch.cat([targets, unlabelled])
    torch.testing.assert_close(task.loss(torch.cat([logits, logits + 1]), mixed), expected)
    assert float(task.loss(logits, unlabelled)) == 0


@tasks
def test_a_teacher_is_nearest_to_itself(task: Task) -> None:
    student, teacher = logits_of(task).requires_grad_(), logits_of(task, seed=1)
    for temperature in (1.0, 3.0):
        assert float(task.divergence(teacher, teacher, temperature=temperature)) == pytest.approx(0, abs=1e-5)
        apart = task.divergence(student, teacher, temperature=temperature)
        (gradient,) = torch.autograd.grad(apart, student)
        assert float(apart.detach()) > 0
        assert (gradient.abs().sum(dim=1) > 0).all()  # every row learns


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("text-classification", [0.5, 1.5, 2.5, 3.5], "fractions"),
        ("text-regression", [1.0, "much", 2.0, 3.0], "row 2 has the label 'much', which is no number"),
        ("multi-label-classification", [(), (), (), ()], "no row has a label"),
        ("text-regression", None, "no label column"),
        ("multi-label-classification", None, "no label column"),
    ],
)
def test_labels_of_another_kind_are_refused(name: str, rows: list[Any] | None, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        task_named(name).labels_of(table(rows))


def test_an_unknown_label_is_named() -> None:
    with pytest.raises(BadInput, match=r"row 4 has the label 'd', which is not known.*Known labels: a, b, c"):
        task_named("multi-label-classification").targets(table([("a",), (), ("c",), "b|d"]), ("a", "b", "c"))


@pytest.mark.parametrize(
    ("name", "labels"),
    [("text-classification", ("one",)), ("text-regression", ("a", "b")), ("multi-label-classification", ())],
)
def test_a_head_that_cannot_do_the_task_is_refused(name: str, labels: tuple[str, ...]) -> None:
    with pytest.raises(BadInput, match="head has"):
        task_named(name).check(labels, where="head")


def test_tasks_load_neither_torch_nor_tables() -> None:
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\nimport models.tasks\n"
        "assert not {'torch', 'pyarrow'} & set(sys.modules), 'loaded'"
    )
    subprocess.run([sys.executable, "-I", "-c", code], check=True)
