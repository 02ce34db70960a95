"""Boxes as shares of an image, and what of them is right. Loads no torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.floating[Any]]
THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of the overlap from which a box is right


def corners(boxes: Boxes) -> Boxes:
    """Return left, upper, right and lower edge of boxes (..., 4) of centre, width and height."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def overlaps(first: Boxes, second: Boxes) -> Boxes:
    """Return (n, m): the common area of boxes (n, 4) and (m, 4) of centre, width and height, over that of both."""
    one, two = corners(first)[:, None], corners(second)[None]
    sides = (np.minimum(one[..., 2:], two[..., 2:]) - np.maximum(one[..., :2], two[..., :2])).clip(min=0)
    common = sides.prod(axis=-1)
    areas = first[:, None, 2:].prod(axis=-1) + second[None, :, 2:].prod(axis=-1) - common
    found: Boxes = np.divide(common, areas, out=np.zeros_like(common), where=areas > 0)
    return found


def right_at(kinds: npt.NDArray[np.int64], scores: Boxes, boxes: Boxes, expected: Boxes) -> npt.NDArray[np.int64]:
    """Return for each of the boxes found in an image at which THRESHOLDS it is right, one bit for each.

    `kinds` (n,), `scores` (n,) and `boxes` (n, 4) are what was found, `expected` (m, 5) are a kind and a box each. The
    surest box chooses first, among the expected ones of its kind that are free at a threshold, the one that it overlaps
    most (COCO's evaluation; Lin et al. 2014).
    """
    bits = np.zeros(len(kinds), dtype=np.int64)
    found = overlaps(boxes, expected[:, 1:])
    free = np.ones((len(THRESHOLDS), len(expected)), dtype=bool)
    levels = np.arange(len(THRESHOLDS))
    for number in np.argsort(-scores, kind="stable"):
        alike = expected[:, 0] == kinds[number]
        if not alike.any():
            continue
        open_to = np.where(free & alike, found[number], -1.0)  # (thresholds, m)
        best = open_to.argmax(axis=1)
        right = open_to[levels, best] >= THRESHOLDS
        free[levels[right], best[right]] = False
        bits[number] = int((1 << levels[right]).sum())
    return bits
