"""Average precision of boxes, from answers and objects to the number, beside COCO's own program."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest

from models.content import Pixels
from models.data import Table
from models.encoded import Encoded
from models.imaging import Image, Imaging
from models.shape import ImageShape
from models.summary import contributions, summarised
from models.tasks import task_named

TASK = task_named("object-detection")
KINDS = ("a", "b", "c", "d")  # the last one is in no image
SIDE, IMAGES, TOKENS = 256, 60, 12


def objects(random: np.random.Generator) -> list[tuple[tuple[Any, ...], ...]]:
    """Return for each image up to four objects, their boxes as shares of the image."""
    rows = []
    for _ in range(IMAGES):
        count = int(random.integers(0, 5))
        sides = random.uniform(0.1, 0.4, (count, 2))
        centres = random.uniform(0.2, 0.8, (count, 2))
        kinds = random.integers(0, len(KINDS) - 1, count)
        rows.append(tuple((KINDS[kind], *c, *s) for kind, c, s in zip(kinds, centres, sides, strict=True)))
    return rows


def answers(random: np.random.Generator, rows: list[tuple[tuple[Any, ...], ...]], *, blur: float) -> np.ndarray:
    """Return logits and boxes (images, tokens, kinds + 1 + 4): each object a few times, more or less moved, taken for
    another kind at times, and boxes of nothing.
    """
    found = np.zeros((len(rows), TOKENS, len(KINDS) + 1 + 4))
    found[..., :-4] = random.normal(0, 1, (*found.shape[:2], len(KINDS) + 1))
    found[..., -4:] = random.uniform(0.1, 0.5, (*found.shape[:2], 4))
    for row, image in enumerate(rows):
        for token, (kind, *box) in enumerate((*image, *image, *image)[:TOKENS]):
            found[row, token, KINDS.index(kind)] += random.uniform(0, 4)
            found[row, token, -4:] = np.array(box) * np.abs(1 + random.normal(0, blur, 4))
    return found.astype(np.float32)


def of_coco(rows: list[tuple[tuple[Any, ...], ...]], found: np.ndarray) -> float:
    """Return what COCO's evaluation says of the answers."""
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    notes = []
    for image, row in enumerate(rows):
        for kind, *box in row:
            left, upper, width, height = in_pixels(box)
            note = {"image_id": image, "category_id": KINDS.index(kind), "bbox": [left, upper, width, height]}
            notes.append(note | {"id": len(notes) + 1, "area": width * height, "iscrowd": 0})
    shares = np.exp(found[..., :-4].astype(np.float64))
    shares = (shares / shares.sum(axis=-1, keepdims=True))[..., :-1]
    detections = [
        {
            "image_id": image,
            "category_id": int(shares[image, token].argmax()),
            "score": float(shares[image, token].max()),
            "bbox": in_pixels(found[image, token, -4:].tolist()),
        }
        for image in range(len(rows))
        for token in range(TOKENS)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        known = coco.COCO()
        known.dataset = {
            "info": {},
            "images": [{"id": image, "width": SIDE, "height": SIDE} for image in range(len(rows))],
            "categories": [{"id": number, "name": name} for number, name in enumerate(KINDS)],
            "annotations": notes,
        }
        known.createIndex()
        judge = evaluation.COCOeval(known, known.loadRes(detections), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return float(judge.stats[0])


def in_pixels(box: list[float]) -> list[float]:
    """Return left, upper, width and height of a box of centre, width and height."""
    across, down, width, height = (SIDE * value for value in box)
    return [across - width / 2, down - height / 2, width, height]


# No draw here has a multiple of ten objects of a kind: there COCO's recalls, which are multiples of 0.01, are at times
# just above those that are reached.
@pytest.mark.parametrize(("seed", "blur"), [(0, 0.0), (1, 0.05), (2, 0.1), (5, 0.2), (4, 1.0)])
def test_the_average_precision_is_that_of_coco(seed: int, blur: float) -> None:
    random = np.random.default_rng(seed)
    rows = objects(random)
    found = answers(random, rows, blur=blur)
    table = Table([], None, list(rows), "rows", "0", [Image("", np.zeros((8, 8), dtype=np.uint8))] * len(rows))
    content = Pixels(np.zeros((len(rows), 1, 8, 8), dtype=np.uint8), Imaging.of(ImageShape(8, 8, 4, 1)))
    offsets = np.arange(len(rows) + 1, dtype=np.int64) * TOKENS
    data = Encoded(content, offsets, TASK.targets(table, KINDS), 0, "0")
    statistics = TASK.statistics(found.reshape(-1, found.shape[-1]), data, KINDS)
    ours = float(summarised(TASK.metric.summary, statistics, np.ones((1, len(rows))))[0])
    theirs = of_coco(rows, found)
    assert 0.0 < theirs < 1.0
    assert ours == pytest.approx(theirs, abs=1e-9)
    assert contributions(TASK.metric.summary, statistics).mean() == pytest.approx(theirs, abs=1e-9)
