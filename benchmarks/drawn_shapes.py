"""A data set to find objects in, drawn from a seed: circles, rectangles and triangles on noise, in the form of COCO.

    python benchmarks/drawn_shapes.py shapes
    compress run shapes --train shapes/train --validation shapes/validation --out runs

Each folder holds PNG files and `annotations.json`. An image has one to three bright shapes on a dark ground, which may
touch and cover a part of one another. On grounds of any colour a network of this size saw nothing for a long time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

MOST_COVERED = 0.25  # of the smaller box, by another one
MOST_SHAPES = 3
DARKEST_SHAPE, BRIGHTEST_GROUND = 120, 60  # of each of the three colours, from 0 to 255
NOISE = 18.0
LEAST_SIDE, MOST_SIDE = 0.22, 0.5  # of the image's


class Box(NamedTuple):
    """Edges in whole pixels, the right and the lower one exclusive."""

    left: int
    upper: int
    right: int
    lower: int

    @property
    def area(self) -> int:
        """Return the pixels inside; 0 where the edges are in the wrong order."""
        return max(0, self.right - self.left) * max(0, self.lower - self.upper)

    def covered(self, other: Box) -> float:
        """Return the common area as a share of the smaller box."""
        common = Box(
            max(self.left, other.left),
            max(self.upper, other.upper),
            min(self.right, other.right),
            min(self.lower, other.lower),
        )
        return common.area / min(self.area, other.area)


def _circle(draw: ImageDraw.ImageDraw, box: Box, colour: tuple[int, ...]) -> None:
    draw.ellipse((box.left, box.upper, box.right - 1, box.lower - 1), fill=colour)


def _rectangle(draw: ImageDraw.ImageDraw, box: Box, colour: tuple[int, ...]) -> None:
    draw.rectangle((box.left, box.upper, box.right - 1, box.lower - 1), fill=colour)


def _triangle(draw: ImageDraw.ImageDraw, box: Box, colour: tuple[int, ...]) -> None:
    top = ((box.left + box.right - 1) / 2, box.upper)
    draw.polygon((top, (box.left, box.lower - 1), (box.right - 1, box.lower - 1)), fill=colour)


SHAPES: Mapping[str, Callable[[ImageDraw.ImageDraw, Box, tuple[int, ...]], None]] = {
    "circle": _circle,
    "rectangle": _rectangle,
    "triangle": _triangle,
}


def drawn(random: np.random.Generator, *, size: int) -> tuple[Image.Image, list[tuple[str, Box]]]:
    """Return an image of `size` pixels each way with one to three shapes, and what they are."""
    ground = random.integers(0, BRIGHTEST_GROUND, 3)
    noise = random.normal(0, NOISE, (size, size, 3))
    image = Image.fromarray((ground + noise).clip(0, 255).astype(np.uint8))
    draw, found = ImageDraw.Draw(image), list[tuple[str, Box]]()
    for _ in range(int(random.integers(1, MOST_SHAPES + 1))):
        kind = list(SHAPES)[int(random.integers(len(SHAPES)))]
        box = _place(random, size, [other for _, other in found], square=kind == "circle")
        if box is not None:
            SHAPES[kind](draw, box, tuple(random.integers(DARKEST_SHAPE, 256, 3).tolist()))
            found.append((kind, box))
    return image, found


def _place(random: np.random.Generator, size: int, others: list[Box], *, square: bool) -> Box | None:
    for _ in range(20):
        width, height = random.integers(int(LEAST_SIDE * size), int(MOST_SIDE * size) + 1, 2)
        height = width if square else height
        left, upper = random.integers(0, size - width + 1), random.integers(0, size - height + 1)
        box = Box(int(left), int(upper), int(left + width), int(upper + height))
        if all(box.covered(other) <= MOST_COVERED for other in others):
            return box
    return None


def write_shapes(folder: Path, *, images: int, size: int, seed: int) -> None:
    """Write so many images and their annotations into a new folder."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    pictures, notes = [], []
    for number in range(images):
        name = f"{number:05}.png"
        image, found = drawn(random, size=size)
        image.save(folder / name)
        pictures.append({"id": number, "file_name": name, "width": size, "height": size})
        for kind, box in found:
            notes.append(
                {
                    "id": len(notes),
                    "image_id": number,
                    "category_id": list(SHAPES).index(kind) + 1,
                    "bbox": [box.left, box.upper, box.right - box.left, box.lower - box.upper],
                    "area": box.area,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(SHAPES, start=1)]
    value = {"images": pictures, "annotations": notes, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(value), encoding="utf-8")


def main() -> None:
    """Write the folders `train` and `validation`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=8000)
    parser.add_argument("--validation", type=int, default=1000)
    parser.add_argument("--size", type=int, default=32, help="pixels each way")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for number, role in enumerate(("train", "validation")):
        seed = options.seed * 2 + number
        write_shapes(options.out / role, images=getattr(options, role), size=options.size, seed=seed)


if __name__ == "__main__":
    main()
