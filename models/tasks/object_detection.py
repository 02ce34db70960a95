"""Where things are in an image, and what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
import numpy.typing as npt

from models.boxes import corners, right_at
from models.choice import probabilities, require_plain
from models.columns import Wanted
from models.errors import BadInput
from models.kinds import Activation, Reads
from models.labels import labels_of, unknown
from models.shape import BOX, HeadShape
from models.summary import Summary
from models.targets import Writes
from models.task import Answer, Floats, Given, Logits, Metric, PairedTest, Shows, Targets

if TYPE_CHECKING:
    from torch import Tensor

    from models.data import Table
    from models.encoded import Encoded

SURE = 0.5  # from which score on a box is taken for right where labels are missing


class _Found(NamedTuple):
    """What each token of an image found: `kinds` and `scores` (images, tokens), `boxes` (images, tokens, 4)."""

    kinds: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]


@final
@dataclass(frozen=True, slots=True)
class ObjectDetection:
    """Each object is answered for by one token, the others by none (Carion et al. 2020) to train; COCO's average
    precision to judge. A student learns token by token what its teacher's say.

    Targets are float32 (rows, most + 1, 5): the kind, -1 where there is no more object, and the box.
    """

    name: str = "object-detection"
    metric: Metric = Metric(
        "map", higher_is_better=True, paired_test=PairedTest.BOOTSTRAP, summary=Summary.AVERAGE_PRECISION
    )
    reading: str = (
        "for scores, box in zip(logits[0], others[0][0]):  # centre, width and height as shares of the image\n"
        "    if scores.argmax() < len(labels):\n"
        "        print(labels[str(scores.argmax())], box)"
    )
    shared: int = 0
    shows: Shows = Shows.NOTHING
    writes: Writes = Writes.NOTHING

    def read(self, wanted: Wanted, split: str | None) -> Table:
        """Return the images, each with its objects (none of them too) or all without."""
        from models.objects import read_objects

        return read_objects(wanted, split)

    def head_of(self, table: Table) -> HeadShape:
        """Return a head with boxes for the kinds of objects that there are, in the order of the alphabet."""
        kinds = sorted({one[0] for row in labels_of(table) for one in _objects(row)})
        if not kinds:
            raise BadInput("no image has an object", where=table.source)
        return HeadShape(tuple(kinds), Activation.RELU, dropout=0.0, task=self.name, reads=Reads.SUFFIX, boxes=True)

    def check(self, head: HeadShape, *, where: str) -> None:
        """Raise BadInput where the head gives no boxes."""
        if not head.boxes:
            raise BadInput("boxes are asked for, and this head gives none", where=where, fix=head.unlike(self.name))

    def targets(self, table: Table, labels: tuple[str, ...]) -> Targets:
        """Return the objects of every image; NaN where they are not known."""
        if table.labels is None:
            return np.full((len(table), 1, 1 + BOX), np.nan, dtype=np.float32)
        numbers = {label: number for number, label in enumerate(labels)}
        if not all(label.isdigit() for label in labels):
            numbers |= {str(number): number for number in range(len(labels)) if str(number) not in numbers}
        rows = [_objects(row) for row in table.labels]
        targets = np.zeros((len(rows), 1 + max(map(len, rows)), 1 + BOX), dtype=np.float32)
        targets[..., 0] = -1
        for row, objects in enumerate(rows):
            for place, (kind, *box) in enumerate(objects):
                if kind not in numbers:
                    raise unknown(kind, row + 1, table, labels, kind="kind of object")
                targets[row, place] = numbers[kind], *box
        return targets

    def loss(self, logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Return the loss of a batch, times its labelled rows."""
        from models.detection import detection_loss

        require_plain(smoothing, task=self.name)
        known = ~targets[:, 0, 0].isnan()
        answers = logits.reshape(len(targets), -1, logits.shape[-1])[known]
        return detection_loss(answers, targets[known]) if len(answers) else logits.sum() * 0

    def divergence(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Return how far the answers of tokens are from the teacher's of the same tokens, summed over them."""
        from models.detection import detection_divergence

        return detection_divergence(student, teacher, temperature=temperature)

    def statistics(self, logits: Logits, data: Encoded, labels: tuple[str, ...]) -> Floats:
        """Return of every image what was found and how many are expected, (rows, 3 * (tokens + labels)) in the form of
        models.average_precision.
        """
        found, targets = _found(logits, len(data)), np.asarray(data.targets)
        tokens = found.kinds.shape[1]
        items = np.zeros((len(data), tokens + len(labels), 3))
        items[:, :tokens, 0], items[:, :tokens, 1] = found.kinds, found.scores
        items[:, tokens:, 0], items[:, tokens:, 1] = np.arange(len(labels)), -1
        for row, objects in enumerate(targets):
            expected = objects[objects[:, 0] >= 0]
            if len(expected):
                items[row, :tokens, 2] = right_at(found.kinds[row], found.scores[row], found.boxes[row], expected)
                items[row, tokens:, 2] = np.bincount(expected[:, 0].astype(np.int64), minlength=len(labels))
        return items.reshape(len(data), -1)

    def predict(self, logits: Logits, data: Encoded) -> Targets:
        """Return what was found with some certainty, in the form of targets."""
        kinds, scores, boxes = _found(logits, len(data))
        given = np.concatenate([np.where(scores > SURE, kinds, -1)[..., None], boxes], axis=-1)
        given[given[..., 0] < 0, 1:] = 0
        none = np.zeros((len(given), 1, 1 + BOX))
        none[..., 0] = -1
        return np.concatenate([given, none], axis=1).astype(np.float32)

    def answer(self, logits: Sequence[Logits], labels: tuple[str, ...], given: Given) -> Answer:
        """Return the objects that are sure enough, the surest first, with their edges in pixels of the image."""
        kinds, scores, boxes = (part[0] for part in _found(logits[0], 1))
        width, height = given.windows[0].size
        edges = corners(boxes).clip(0, 1) * np.array([width, height, width, height])
        objects: list[dict[str, Any]] = [
            {
                "label": labels[kinds[token]],
                "score": float(scores[token]),
                "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), edges[token].tolist(), strict=True)),
            }
            for token in np.argsort(-scores, kind="stable")
            if scores[token] > given.threshold
        ]
        lines = [
            f"{one['label']}\t{one['score']:.1%}\t{' '.join(f'{edge:.1f}' for edge in one['box'].values())}"
            for one in objects
        ]
        return Answer("\n".join(lines) or "(nothing)", {"objects": objects})


def _objects(row: object) -> tuple[tuple[str, float, float, float, float], ...]:
    assert isinstance(row, tuple)
    return row


def _found(logits: Logits, images: int) -> _Found:
    answers = logits.reshape(images, -1, logits.shape[-1])
    shares = probabilities(answers[..., :-BOX])[..., :-1]
    return _Found(np.asarray(shares.argmax(axis=-1), np.int64), shares.max(axis=-1), answers[..., -BOX:])
