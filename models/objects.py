"""Tables of images with the objects in them: COCO's JSON files, and columns of images and of objects."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.columns import Wanted
from models.data import Label, Table, read_columns
from models.errors import BadFile, BadInput
from models.files import digest_of, inside, sha256_file
from models.images import images_in, read_images
from models.imaging import Image, opened_image

MOST_OBJECTS = 1000  # of one image
OBJECT_COLUMNS = ("objects", "annotations")
BOX_KEYS = ("bbox", "bboxes", "box", "boxes")
KIND_KEYS = ("category", "categories", "category_id", "label", "labels", "class", "classes")

Object = tuple[str, float, float, float, float]


def read_objects(wanted: Wanted, split: str | None = None) -> Table:
    """Return images; `labels` are tuples of (kind, centre from the left, from above, width, height), the numbers as
    shares of the image, empty where there is nothing.

    Read are JSON files in the form of COCO (Lin et al. 2014), whose images lie beside the file, in a folder `images` or
    one of the file's name, there or one folder up; a folder with one such file; and tables (JSON Lines, Parquet, hub
    data sets) with a column of images and one of objects: {"bbox": [[left, upper, width, height]], "category": [...]}
    in pixels. A folder without a JSON file holds images without labels. Boxes are cut at the image's edges, and left
    out where nothing remains; so are regions of many objects (`iscrowd`).

    Raises:
        BadInput, BadFile: as `read_table` and `read_images` raise; a box that is none, or more than 1,000 in an image.
    """
    path = Path(wanted.source).expanduser()
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            return replace(read_images(wanted, split), labels=None)
        if len(files) > 1:
            raise BadInput(
                f"holds {len(files)} JSON files, {files[0].name} and others", where=wanted.source, fix="Name one file."
            )
        path = files[0]
    if path.is_file() and path.suffix.lower() == ".json":
        return _of_coco(path, wanted.source)
    return _of_columns(wanted, split, path.parent if path.is_file() else None)


def _of_coco(path: Path, source: str) -> Table:
    try:
        value = json.loads(path.read_bytes())
        images = [(one["id"], str(one["file_name"]), one["width"], one["height"]) for one in value["images"]]
        kinds = {one["id"]: str(one["name"]) for one in value.get("categories", ())}
        noted = value.get("annotations")
        boxes: dict[Any, list[tuple[str, Any]]] = {number: [] for number, *_ in images}
        for one in noted or ():
            if not one.get("iscrowd"):
                boxes[one["image_id"]].append((kinds[one["category_id"]], one["bbox"]))
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BadFile(
            f"not in the form of COCO ({type(error).__name__}: {error})",
            where=str(path),
            fix='It is one object with "images", "categories" and "annotations". Lines of JSON are called .jsonl.',
        ) from None
    if not images:
        raise BadFile("there are no images", where=str(path))
    folder = _folder(path, images[0][1])
    files = [inside(folder, name) for _, name, _, _ in images]
    labels: list[Label] | None = None
    if noted is not None:
        labels = [
            tuple(_objects(boxes[number], (width, height), f"image {name}", source))
            for number, name, width, height in images
        ]
    found = [Image(f"{source}: {name}", file) for (_, name, _, _), file in zip(images, files, strict=True)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise BadInput(f"{len(missing)} of its images are not there: {missing[0]}", where=f"{source}: {folder}")
    digest = digest_of([sha256_file(path), *(sha256_file(file) for file in files)])
    return Table([], None, labels, source, digest, found)


def _folder(path: Path, first: str) -> Path:
    """Return the folder that holds the images of a file of COCO's."""
    name = path.stem.removeprefix("instances_")
    up = path.parent.parent
    places = [path.parent, path.parent / "images", path.parent / name, up / name, up / "images", up / "images" / name]
    for place in places:
        if inside(place, first).is_file():
            return place
    raise BadInput(
        f"the image {first!r} is not there", where=str(path), fix=f"Looked for in {', '.join(map(str, places))}."
    )


def _of_columns(wanted: Wanted, split: str | None, folder: Path | None) -> Table:
    columns, table, names, digest = read_columns(wanted._replace(kind="image", labels=OBJECT_COLUMNS), split)
    images = images_in(table[columns.text].to_pylist(), columns.text, wanted.source, folder)
    labels: list[Label] | None = None
    if columns.label is not None:
        labels = []
        for row, (image, value) in enumerate(zip(images, table[columns.label].to_pylist(), strict=True), start=1):
            pairs = _pairs(value, row, wanted.source, names)
            size = opened_image(image).size if pairs else (1, 1)
            labels.append(tuple(_objects(pairs, size, f"row {row}", wanted.source)))
    return Table([], None, labels, wanted.source, digest_of([digest, *columns]), images)


def _pairs(value: Any, row: int, source: str, names: Sequence[str] | None) -> list[tuple[str, Any]]:
    """Return kind and box of the objects of a row: a record of lists, or a list of records."""
    try:
        if isinstance(value, Mapping):
            kinds, boxes = _of(value, KIND_KEYS), _of(value, BOX_KEYS)
        else:
            kinds, boxes = ([_of(one, keys) for one in value or ()] for keys in (KIND_KEYS, BOX_KEYS))
        named = [names[kind] if names is not None and isinstance(kind, int) else kind for kind in kinds]
        return [(str(kind), box) for kind, box in zip(named, boxes, strict=True)]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadInput(
            f"row {row} has objects that are not bbox and category ({type(error).__name__}: {error})",
            where=source,
            fix='Write {"bbox": [[left, upper, width, height]], "category": ["..."]}, with empty lists for nothing.',
        ) from None


def _of(value: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return value[next((key for key in keys if key in value), keys[0])]


def _objects(pairs: Sequence[tuple[str, Any]], size: tuple[Any, Any], where: str, source: str) -> Iterator[Object]:
    """Yield the objects of an image of `size`, width and height, as shares of it."""
    if len(pairs) > MOST_OBJECTS:
        raise BadInput(f"{where} has {len(pairs)} objects, and {MOST_OBJECTS} are the most", where=source)
    for kind, box in pairs:
        try:
            left, upper, wide, high = (float(number) for number in box)
            width, height = (float(number) for number in size)
        except (TypeError, ValueError):
            raise BadInput(f"{where} has the box {box!r}, which is not four numbers", where=source) from None
        if not all(map(math.isfinite, (left, upper, wide, high))) or width < 1 or height < 1:
            raise BadInput(f"{where} of {width:g} x {height:g} pixels has the box {box!r}", where=source)
        right, lower = min(left + wide, width) / width, min(upper + high, height) / height
        left, upper = max(left, 0.0) / width, max(upper, 0.0) / height
        if right > left and lower > upper:
            yield kind, (left + right) / 2, (upper + lower) / 2, right - left, lower - upper
