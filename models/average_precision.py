"""Mean average precision as COCO has it, of weighted images, from what is known of each image alone.

An image's statistics are items of three numbers. A box that was found is its kind, its score from 0 to 1, and the sum
of 2^t over the thresholds t at which it is right. How many are expected of a kind is the kind, -1, and their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
LEVELS = 10  # thresholds of the overlap
STEPS = 100  # of the recall, whose 101 ends are asked for the precision
DRAWS = 16  # at once: their numbers stay in the processor's cache


class _Kind(NamedTuple):
    """What is known of a kind: how many are `expected` in each image, and of every box of it that was found, the surest
    first, its image and at which levels it is right.
    """

    expected: Floats
    images: Whole
    right: Whole


def average_precision(statistics: Floats, weights: Floats) -> Floats:
    """Return (draws,) the precision, the mean over kinds, levels of overlap and recalls, of weighted images.

    `weights` (draws, n) says how often a draw holds an image. Boxes that come from the same image stand side by side in
    the order of scores, and what holds behind the last of several copies is what counts: so a weight is as good as
    copies, but for boxes of one image with the very same score. A kind that a draw expects nowhere is not asked for.
    """
    kinds = list(_kinds(statistics))
    totals, present = np.zeros(len(weights)), np.zeros(len(weights))
    for start in range(0, len(weights), DRAWS):
        some = slice(start, start + DRAWS)
        for kind in kinds:
            wanted = weights[some] @ kind.expected
            for _, steps, precision in _levels(kind, weights[some], wanted):
                totals[some] += (steps * precision).sum(axis=1)
            present[some] += wanted > 0
    found: Floats = np.divide(totals, present * LEVELS * (STEPS + 1), out=np.zeros(len(weights)), where=present > 0)
    return found


def precision_by_image(statistics: Floats) -> Floats:
    """Return (n,) what each image adds to the average precision, whose mean they have: of every recall, the precision
    there is added by the image whose box reaches it.
    """
    count = len(statistics)
    once, added, present = np.ones((1, count)), np.zeros(count), 0
    for kind in _kinds(statistics):
        wanted = once @ kind.expected
        for places, steps, precision in _levels(kind, once, wanted):
            np.add.at(added, kind.images[places], (steps * precision)[0])
        present += int(wanted[0] > 0)
    return added * count / (present * LEVELS * (STEPS + 1)) if present else added


def _kinds(statistics: Floats) -> Iterator[_Kind]:
    items = statistics.reshape(len(statistics), -1, 3)
    images = np.broadcast_to(np.arange(len(items))[:, None], items.shape[:2])
    found = items[..., 1] >= 0
    for number in np.unique(items[~found & (items[..., 2] > 0)][:, 0]):
        own = items[..., 0] == number
        mine = own & found
        order = np.argsort(-items[mine][:, 1], kind="stable")
        yield _Kind(
            expected=(items[..., 2] * (own & ~found)).sum(axis=1),
            images=images[mine][order],
            right=items[mine][order, 2].astype(np.int64),
        )


def _levels(kind: _Kind, weights: Floats, wanted: Floats) -> Iterator[tuple[Whole, Floats, Floats]]:
    """Yield for each level the boxes that are right, and (draws, boxes) how many of the recalls each is the first to
    reach, and the precision from there on.
    """
    some = np.flatnonzero(kind.right)
    last = some[-1] + 1 if len(some) else 0  # what is less sure than the last right box changes nothing
    given = np.cumsum(weights[:, kind.images[:last]], axis=1)[:, some]
    for level in range(LEVELS):
        among = np.flatnonzero(kind.right[some] >> level & 1)
        places = some[among]
        hits = np.cumsum(weights[:, kind.images[places]], axis=1)
        shares = np.divide(hits, given[:, among], out=np.zeros_like(hits), where=hits > 0)
        precision = np.maximum.accumulate(shares[:, ::-1], axis=1)[:, ::-1]
        reached = np.divide(STEPS * hits, wanted[:, None], out=np.zeros_like(hits), where=wanted[:, None] > 0)
        ends = np.where(hits > 0, np.floor(reached) + 1, 0.0)
        yield places, np.diff(ends, axis=1, prepend=0.0), precision
