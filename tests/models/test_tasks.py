"""Every task: its targets, its loss beside the formulas of torch, its metric, and what it answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import tiny_tokenizing
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from models.data import Table
from models.encoded import Encoded
from models.errors import BadInput, Unsupported
from models.kinds import Reads
from models.shape import HeadShape
from models.summary import contributions
from models.task import Given, Task
from models.tasks import TASKS, task_named
from models.tasks.token_classification import Span, in_iob2, spans
from models.token_cache import encode_table
from models.tokenizing import Encoding

TEXTS = ["w2 w3 w4", "w5 w6 w7", "w8 w9 w2", "w3 w3 w3"]
EXAMPLES: dict[str, tuple[list[Any], tuple[str, ...]]] = {
    "text-classification": (["b", "a", "c", "b"], ("a", "b", "c")),
    "image-classification": (["b", "a", "c", "b"], ("a", "b", "c")),  # what its rows hold means nothing here
    "multi-label-classification": ([("a",), (), ("c", "a"), "b|c"], ("a", "b", "c")),
    "text-regression": ([0.5, 3, -1.25, 2.0], ("score",)),
    "token-classification": (
        [("O", "B-x", "I-x"), ("B-x", "B-x", "B-y"), ("O", "O", "O"), ("B-y", "I-y", "O")],
        ("O", "B-x", "I-x", "B-y", "I-y"),
    ),
}
# Whose rows are more than a text with its label.
OF_PAIRS = ("sentence-embedding", "question-answering", "object-detection")
of_texts = pytest.mark.parametrize(
    "task", [task for task in TASKS if task.name not in OF_PAIRS], ids=lambda task: task.name
)


def table(labels: list[Any] | None) -> Table:
    return Table(TEXTS, None, labels, "rows.csv", "0")


def encoded(task: Task, labels: list[Any] | None, folder: Path) -> Encoded:
    targets = task.targets(table(labels), EXAMPLES[task.name][1])
    return encode_table(table(labels), tiny_tokenizing(), targets, max_length=10, cache=folder)


def perfect(task: Task, data: Encoded) -> np.ndarray:
    """Return the logits of a model that is right."""
    targets = np.asarray(data.targets)
    if task.name == "text-regression":
        return targets[:, None].astype(np.float32)
    if task.name == "multi-label-classification":
        return (2 * targets - 1).astype(np.float32)
    classes = targets[:, 0] if data.by_token else targets
    return 10 * np.eye(len(EXAMPLES[task.name][1]), dtype=np.float32)[classes]


def drawn(task: Task, data: Encoded, seed: int = 0) -> torch.Tensor:
    outputs = len(EXAMPLES[task.name][1])
    return torch.randn(len(data.targets), outputs, generator=torch.Generator().manual_seed(seed))


def test_every_task_has_an_example_and_is_found_by_its_name() -> None:
    assert {*EXAMPLES, *OF_PAIRS} == {task.name for task in TASKS}
    assert all(task_named(task.name) is task for task in TASKS)
    with pytest.raises(Unsupported, match="Did you mean 'text-regression'"):
        task_named("text-regresion")


@of_texts
def test_labels_become_targets_and_targets_answers(task: Task, tmp_path: Path) -> None:
    rows, labels = EXAMPLES[task.name]
    head = task.head_of(table(rows))
    assert (head.labels, head.task) == (labels, task.name)
    task.check(head, where="head")
    data = encoded(task, rows, tmp_path)
    assert data.labelled.tolist() == [True] * 4
    right = perfect(task, data)
    statistics = task.statistics(right, data, labels)
    assert len(statistics) == 4
    assert contributions(task.metric.summary, statistics).mean() == pytest.approx(1.0)
    for one in task.metric.besides:
        assert contributions(one.summary, statistics[:, one.first :]).mean() == pytest.approx(1.0)
    np.testing.assert_array_equal(task.predict(right, data), data.targets)
    given_ = Encoding([2, 3, 4], [0, 0, 0], truncated=False, spans=[(0, 2), (3, 5), (6, 8)], words=[0, 1, 2])
    answers = [
        task.answer([part], labels, Given(text, None, [given_]))
        for part, text in zip(np.split(right, 4), TEXTS, strict=True)
    ]
    assert all(answer.text and answer.values for answer in answers)
    assert not encoded(task, None, tmp_path).labelled.any()


@of_texts
def test_the_loss_is_that_of_what_is_labelled(task: Task, tmp_path: Path) -> None:
    rows, _ = EXAMPLES[task.name]
    data, without = encoded(task, rows, tmp_path), encoded(task, None, tmp_path)
    logits, targets, unlabelled = drawn(task, data), torch.tensor(data.targets), torch.tensor(without.targets)
    expected = {
        "text-classification": lambda: 4 * cross_entropy(logits, targets),
        "image-classification": lambda: 4 * cross_entropy(logits, targets),
        "multi-label-classification": lambda: 4 * binary_cross_entropy_with_logits(logits, targets),
        "text-regression": lambda: 4 * mse_loss(logits[:, 0], targets),
        "token-classification": lambda: 12 * cross_entropy(logits, targets[:, 0]),
    }[task.name]()
    torch.testing.assert_close(task.loss(logits, targets), expected)
    mixed = torch.cat([targets, unlabelled])
    torch.testing.assert_close(task.loss(torch.cat([logits, logits + 1]), mixed), expected)
    logits.requires_grad_()
    nothing = task.loss(logits, unlabelled)
    nothing.backward()
    assert float(nothing.detach()) == 0 and float(logits.grad.abs().sum()) == 0  # type: ignore[union-attr]


@of_texts
def test_a_teacher_is_nearest_to_itself(task: Task, tmp_path: Path) -> None:
    data = encoded(task, None, tmp_path)
    student, teacher = drawn(task, data).requires_grad_(), drawn(task, data, seed=1)
    for temperature in (1.0, 3.0):
        assert float(task.divergence(teacher, teacher, temperature=temperature)) == pytest.approx(0, abs=1e-5)
        apart = task.divergence(student, teacher, temperature=temperature)
        (gradient,) = torch.autograd.grad(apart, student)
        assert float(apart.detach()) > 0
        assert (gradient.abs().sum(dim=1) > 0).all()  # every answer learns


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("text-classification", [0.5, 1.5, 2.5, 3.5], "fractions"),
        ("text-regression", [1.0, "much", 2.0, 3.0], "row 2 has the label 'much', which is no number"),
        ("multi-label-classification", [(), (), (), ()], "no row has a label"),
        ("token-classification", [("O", "x", "O")] * 4, "no tag begins with B- or I-: O, x"),
        ("text-regression", None, "no label column"),
        ("multi-label-classification", None, "no label column"),
        ("token-classification", None, "no column of tags"),
    ],
)
def test_labels_of_another_kind_are_refused(name: str, rows: list[Any] | None, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        task_named(name).head_of(table(rows))


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("multi-label-classification", [("a",), (), ("c",), "b|d"], r"row 4 has the label 'd', which is not known"),
        ("token-classification", [("O", "B-z", "O")] * 4, r"row 1 has the tag 'B-z', which is not known"),
    ],
)
def test_an_unknown_label_is_named(name: str, rows: list[Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        task_named(name).targets(table(rows), EXAMPLES[name][1])


@of_texts
def test_a_head_that_cannot_do_the_task_is_refused(task: Task) -> None:
    _, labels = EXAMPLES[task.name]
    reads = Reads.FIRST if task.name == "token-classification" else Reads.EACH
    other = HeadShape(labels, task="another", reads=reads)
    with pytest.raises(BadInput, match="head.*Its own task is another"):
        task.check(other, where="teacher")
    if task.name in ("text-classification", "image-classification", "text-regression"):
        with pytest.raises(BadInput, match="this head has"):
            task.check(HeadShape(("a", "b") if task.name == "text-regression" else ("a",)), where="teacher")


def test_tasks_load_neither_torch_nor_tables() -> None:
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\nimport models.tasks\n"
        "assert not {'torch', 'pyarrow'} & set(sys.modules), 'loaded'"
    )
    subprocess.run([sys.executable, "-I", "-c", code], check=True)


def test_spans_are_those_of_conlleval() -> None:
    assert spans(["B-a", "I-a", "O", "I-b", "B-b", "I-a"]) == {
        Span("a", 0, 2),
        Span("b", 3, 4),
        Span("b", 4, 5),
        Span("a", 5, 6),
    }
    assert spans([]) == set()
    assert in_iob2(["I-a", "I-a", "B-a", "O", "I-b", "I-a"]) == ["B-a", "I-a", "B-a", "O", "B-b", "B-a"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["O", "B-a", "I-a", "B-b", "I-b"]), max_size=12))
def test_tags_in_iob2_hold_the_same_spans(tags: list[str]) -> None:
    better = in_iob2(tags)
    assert spans(better) == spans(tags)
    assert in_iob2(better) == better
    # Written out again from the spans they are the same.
    again = ["O"] * len(tags)
    for span in spans(tags):
        again[span.start : span.end] = [f"B-{span.kind}"] + [f"I-{span.kind}"] * (span.end - span.start - 1)
    assert again == better


def test_a_wrong_boundary_is_a_wrong_span(tmp_path: Path) -> None:
    task, (rows, labels) = task_named("token-classification"), EXAMPLES["token-classification"]
    data = encoded(task, rows, tmp_path)
    logits = perfect(task, data)
    logits[2] = 10 * np.eye(5)[0]  # the second word of "B-x I-x" is lost
    assert task.statistics(logits, data, labels).tolist() == [[0, 1, 1], [3, 3, 3], [0, 0, 0], [1, 1, 1]]


def test_spans_are_answered_with_their_characters() -> None:
    task, labels = task_named("token-classification"), EXAMPLES["token-classification"][1]
    text = "See Ann Smith-Lee."
    spans_ = [(0, 0), (0, 3), (4, 7), (8, 11), (11, 13), (13, 14), (14, 17), (17, 18), (0, 0)]
    tags = [0, 0, 1, 2, 4, 2, 2, 0, 0]  # the later piece of a word says nothing
    logits = 10 * np.eye(5, dtype=np.float32)[tags]
    words = [-1, 0, 1, 2, 2, 3, 4, 5, -1]
    given_ = Encoding([0] * 9, [0] * 9, truncated=False, spans=spans_, words=words)
    answer = task.answer([logits], labels, Given(text, None, [given_]))
    (found,) = answer.values["spans"]
    assert (found["label"], found["text"], found["start"], found["end"]) == ("x", "Ann Smith-Lee", 4, 17)
    assert found["score"] > 0.99
    assert answer.text == "Ann Smith-Lee (x)"
