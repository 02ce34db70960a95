"""Finding objects: the cheapest matching beside scipy, the loss beside `transformers`, boxes, scores and answers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from support.images import BOXES, image_oracle, pixel_batches
from torch.nn.functional import kl_div, log_softmax

from models.assignment import assignment
from models.boxes import corners, overlaps, right_at
from models.content import Pixels
from models.data import Table
from models.detection import answered, detection_loss, generalized_overlap
from models.encoded import Encoded, joined
from models.errors import BadInput
from models.imaging import Image, Imaging, Picture
from models.shape import HeadShape, ImageShape
from models.summary import contributions
from models.task import Given
from models.tasks import task_named

TASK = task_named("object-detection")
KINDS = ("a", "b", "c")
EMPTY = np.array([-1.0, 0, 0, 0, 0])


def table(labels: list[Any] | None, rows: int = 3) -> Table:
    pixels = np.zeros((8, 8), dtype=np.uint8)
    return Table([], None, labels, "rows", "0", [Image(f"row {row}", pixels) for row in range(rows)])


ROWS: list[Any] = [
    (("b", 0.25, 0.25, 0.5, 0.5), ("a", 0.75, 0.5, 0.25, 0.5)),
    (),
    (("c", 0.5, 0.5, 1.0, 1.0),),
]


def encoded(labels: list[Any] | None, *, tokens: int = 5) -> Encoded:
    rows = table(labels)
    offsets = np.arange(len(rows) + 1, dtype=np.int64) * tokens
    content = Pixels(np.zeros((len(rows), 1, 8, 8), dtype=np.uint8), Imaging.of(ImageShape(8, 8, 4, 1)))
    return Encoded(content, offsets, TASK.targets(rows, KINDS), 0, "0")


def perfect(data: Encoded) -> np.ndarray:
    """Return what a model answers that is right, with one token more than objects."""
    targets = np.asarray(data.targets)
    kinds = targets[..., 0].astype(int)
    logits = 20 * np.eye(len(KINDS) + 1)[np.where(kinds < 0, len(KINDS), kinds)]
    answers = np.concatenate([logits, np.where(kinds[..., None] < 0, 0.5, targets[..., 1:])], axis=-1)
    return answers.astype(np.float32).reshape(-1, answers.shape[-1])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 7), st.integers(0, 7), st.integers(0, 10_000), st.booleans())
def test_the_cheapest_assignment_is_that_of_scipy(rows: int, more: int, seed: int, whole: bool) -> None:
    random = np.random.default_rng(seed)
    size = (rows, rows + max(more, 1))
    costs = random.integers(0, 4, size).astype(float) if whole else random.normal(size=size)  # with ties, and without
    found = assignment(costs)
    assert len(set(found.tolist())) == rows
    expected = linear_sum_assignment(costs)
    assert costs[np.arange(rows), found].sum() == pytest.approx(costs[expected].sum())
    if not whole:
        assert found.tolist() == expected[1].tolist()


@pytest.mark.parametrize("tokens", [1, 5])
def test_the_loss_is_that_of_transformers(tokens: int) -> None:
    model: Any = image_oracle("yolos", num_labels=3, num_detection_tokens=tokens)
    batch = pixel_batches(model.config)[1]
    random = np.random.default_rng(0)
    objects = np.tile(EMPTY, (4, 4, 1))
    for row, count in enumerate((2, 0, 3, 1)):
        objects[row, :count, 0] = random.integers(0, 3, count)
        objects[row, :count, 1:] = random.uniform(0.1, 0.6, (count, 4))
    wanted = [
        {
            "class_labels": torch.tensor(row[row[:, 0] >= 0, 0]).long(),
            "boxes": torch.tensor(row[row[:, 0] >= 0, 1:]).float(),
        }
        for row in objects
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs = model(**batch, labels=wanted)
    answers = torch.cat([outputs.logits, outputs.pred_boxes], dim=-1).detach().requires_grad_()
    loss = TASK.loss(answers.flatten(0, 1), torch.tensor(objects).float())
    if tokens > 1:  # with fewer tokens than objects they divide by all objects, we by those that are answered for
        torch.testing.assert_close(loss / 4, outputs.loss, atol=1e-5, rtol=1e-5)
    (gradient,) = torch.autograd.grad(loss, answers)
    images, chosen, _ = answered(answers.detach(), torch.tensor(objects).float())
    assert len(images) == min(2, tokens) + min(3, tokens) + 1
    assert (gradient[images, chosen].abs() > 0).any(dim=-1).all()
    others = torch.ones(answers.shape[:2], dtype=torch.bool)
    others[images, chosen] = False
    assert gradient[others][:, -4:].abs().sum() == 0  # where nothing is, no box is right


def test_rows_without_labels_add_nothing_to_the_loss() -> None:
    targets = torch.tensor(encoded(ROWS).targets)
    answers = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))
    answers[..., -4:] = answers[..., -4:].sigmoid()
    alone = TASK.loss(answers.flatten(0, 1), targets)
    torch.testing.assert_close(alone, detection_loss(answers, targets))
    mixed = torch.cat([targets, torch.full_like(targets, torch.nan)])
    torch.testing.assert_close(TASK.loss(torch.cat([answers, answers]).flatten(0, 1), mixed), alone)
    logits = answers.flatten(0, 1).clone().requires_grad_()
    TASK.loss(logits, torch.full_like(targets, torch.nan)).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert float(logits.grad.abs().sum()) == 0


def test_answers_that_are_no_numbers_give_a_loss_that_is_none() -> None:
    answers = torch.full((2, 3, 8), torch.nan)
    objects = torch.tensor(encoded(ROWS).targets[[0, 0]])
    assert detection_loss(answers, objects).isnan()


def test_a_token_learns_what_its_teacher_says() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, 7, 8, generator=generator)
    teacher[:, -4:], student[:, -4:] = teacher[:, -4:].sigmoid(), student[:, -4:].sigmoid()
    teacher[0, :4] = torch.tensor([-50.0, -50, -50, 50])  # the teacher sees nothing here
    student.requires_grad_()
    for temperature in (1.0, 3.0):
        assert float(TASK.divergence(teacher, teacher, temperature=temperature)) == pytest.approx(0, abs=1e-5)
        apart = TASK.divergence(student, teacher, temperature=temperature)
        ours, theirs = (log_softmax(one[:, :4] / temperature, dim=-1) for one in (student, teacher))
        kinds = kl_div(ours, theirs, reduction="sum", log_target=True) * temperature**2
        (gradient,) = torch.autograd.grad(apart - kinds, student)
        assert gradient[:, :4].abs().sum() < 1e-4
        assert gradient[0, 4:].abs().sum() == 0
        assert (gradient[1:, 4:].abs().sum(dim=1) > 0).all()


def test_overlaps_that_were_counted_by_hand() -> None:
    one = np.array([[0.25, 0.25, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]])
    two = np.array([[0.25, 0.25, 0.5, 0.5], [0.75, 0.25, 0.5, 0.5], [0.5, 0.25, 0.5, 0.5], [0.9, 0.9, 0.0, 0.0]])
    assert corners(one)[0].tolist() == [0.0, 0.0, 0.5, 0.5]
    np.testing.assert_allclose(overlaps(one, two), [[1, 0, 1 / 3, 0], [0.25, 0.25, 0.25, 0]])
    theirs = generalized_overlap(torch.tensor(one)[:, None], torch.tensor(two)[None])
    # Boxes side by side fill what is around them; the last one is empty, and around it and the first lies 0.81.
    np.testing.assert_allclose(theirs[0], [1, 0, 1 / 3, (0.25 - 0.81) / 0.81], atol=1e-12)


def test_the_surest_box_chooses_first() -> None:
    expected = np.array([[0, 0.25, 0.5, 0.5, 1.0], [1, 0.75, 0.5, 0.5, 1.0]])
    boxes = np.array([[0.25, 0.5, 0.5, 1.0], [0.25, 0.5, 0.5, 0.8], [0.75, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 0.62]])
    kinds = np.array([0, 0, 0, 1])
    scores = np.array([0.5, 0.9, 0.8, 0.1])
    # The second takes the object up to an overlap of 0.8, and leaves it to the first above; the third has none of its
    # kind left.
    assert right_at(kinds, scores, boxes, expected).tolist() == [0b1110000000, 0b0001111111, 0, 0b0000000111]


def test_labels_become_targets_and_targets_answers() -> None:
    data = encoded(ROWS)
    assert data.targets.shape == (3, 3, 5)
    np.testing.assert_allclose(data.targets[0], [[1, 0.25, 0.25, 0.5, 0.5], [0, 0.75, 0.5, 0.25, 0.5], EMPTY])
    np.testing.assert_allclose(data.targets[1], [EMPTY] * 3)
    assert data.labelled.tolist() == [True] * 3
    assert not encoded(None).labelled.any()
    head = TASK.head_of(table(ROWS))
    assert head == BOXES
    TASK.check(head, where="head")
    right = perfect(data)
    statistics = TASK.statistics(right, data, KINDS)
    assert statistics.shape == (3, 3 * (3 + 3))
    assert contributions(TASK.metric.summary, statistics).mean() == pytest.approx(1.0)
    found = TASK.predict(right, data)
    np.testing.assert_allclose(found[:, :-1], data.targets, atol=1e-6)
    np.testing.assert_allclose(found[:, -1], np.tile(EMPTY, (3, 1)))
    judged = Encoded(data.content, data.offsets, found, 0, "1")  # answers are as good as labels
    np.testing.assert_allclose(TASK.statistics(right, judged, KINDS), statistics)
    moved = right.copy()
    moved[:, -4] += 0.4
    assert contributions(TASK.metric.summary, TASK.statistics(moved, data, KINDS)).mean() < 0.4


def test_numbers_of_kinds_are_known_too() -> None:
    rows: list[Any] = [(("2", 0.5, 0.5, 1.0, 1.0),), (), ()]
    assert TASK.targets(table(rows), KINDS)[0, 0, 0] == 2
    assert TASK.targets(table(rows), ("1", "2"))[0, 0, 0] == 1
    with pytest.raises(BadInput, match=r"row 1 has the kind of object '2', which is not known"):
        TASK.targets(table(rows), ("0", "1"))


def test_rows_of_more_and_of_fewer_objects_are_joined() -> None:
    both = joined([encoded(ROWS), encoded(None), encoded([(), (), ()])])
    assert both.targets.shape == (9, 3, 5)
    assert both.labelled.tolist() == [True] * 3 + [False] * 3 + [True] * 3
    assert (both.targets[6:, :, 0] == -1).all()


def test_boxes_are_shifted_and_mirrored_with_their_images() -> None:
    """A bright box on black stays where its object says, whatever happens to the image."""
    random = np.random.default_rng(0)
    pixels, rows = np.zeros((40, 1, 16, 24), dtype=np.uint8), []
    for row in range(len(pixels)):
        width, height = random.integers(2, 9, 2)
        left, top = random.integers(0, 24 - width), random.integers(0, 16 - height)
        pixels[row, 0, top : top + height, left : left + width] = 255
        rows.append((("a", (left + width / 2) / 24, (top + height / 2) / 16, width / 24, height / 16),))
    imaging = Imaging.of(ImageShape(16, 24, 8, 1))
    targets = TASK.targets(table(rows, len(rows)), KINDS)
    offsets = np.arange(len(rows) + 1, dtype=np.int64) * 9
    data = Encoded(Pixels(pixels, imaging), offsets, targets, 0, "0")
    torch.manual_seed(0)
    batch = data.moved.batch(np.arange(len(rows)))
    changed = 0
    for image, objects, before in zip(
        batch.inputs["pixel_values"].numpy(), batch.targets.numpy(), targets, strict=True
    ):
        bright = np.argwhere(image[0] > 0)
        assert objects[1].tolist() == EMPTY.tolist()
        if not len(bright):
            assert objects[0].tolist() == EMPTY.tolist()
            continue
        (top, left), (bottom, right) = bright.min(axis=0), bright.max(axis=0) + 1
        expected = [(left + right) / 48, (top + bottom) / 32, (right - left) / 24, (bottom - top) / 16]
        np.testing.assert_allclose(objects[0], [0, *expected], atol=1e-6)
        changed += not np.allclose(objects, before)
    assert changed > 30
    unlabelled = Encoded(data.content, offsets, np.full((len(rows), 1, 5), np.nan, dtype=np.float32), 0, "1")
    assert unlabelled.moved.batch(np.arange(3)).targets.isnan()[..., 0].all()


def test_objects_are_answered_in_pixels_of_the_image_that_was_given() -> None:
    logits = np.zeros((3, 8), dtype=np.float32)
    logits[0] = [0, 9, 0, 0, 0.25, 0.5, 0.5, 0.5]
    logits[1] = [0, 0, 0, 9, 0.5, 0.5, 0.2, 0.2]
    logits[2] = [1, 0, 0, 0, 0.9, 0.9, 0.4, 0.4]  # unsure, and partly outside
    picture = Picture(np.zeros((1, 8, 8), dtype=np.float32), (200, 100))
    answer = TASK.answer([logits], KINDS, Given("image.png", None, [picture]))
    (found,) = answer.values["objects"]
    assert (found["label"], found["box"]) == ("b", {"xmin": 0.0, "ymin": 25.0, "xmax": 100.0, "ymax": 75.0})
    assert found["score"] > 0.99
    assert answer.text == "b\t100.0%\t0.0 25.0 100.0 75.0"
    more = TASK.answer([logits], KINDS, Given("image.png", None, [picture], threshold=0.3)).values["objects"]
    assert [one["label"] for one in more] == ["b", "a"]
    assert more[1]["box"] == pytest.approx({"xmin": 140, "ymin": 70, "xmax": 200, "ymax": 100}, abs=1e-4)
    nothing = TASK.answer([logits[1:2]], KINDS, Given("image.png", None, [picture]))
    assert (nothing.text, nothing.values["objects"]) == ("(nothing)", [])


def test_what_is_of_another_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="boxes are asked for.*Its own task is image-classification"):
        TASK.check(HeadShape(KINDS, task="image-classification"), where="teacher")
    with pytest.raises(BadInput, match="has 3 for each box.*Its own task is object-detection"):
        task_named("image-classification").check(BOXES, where="teacher")
    with pytest.raises(BadInput, match="no image has an object"):
        TASK.head_of(table([(), (), ()]))
    with pytest.raises(BadInput, match="no label column"):
        TASK.head_of(table(None))
