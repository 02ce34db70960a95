"""Images with objects: files in the form of COCO, columns, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
from support.images import drawn, encoded

from models.columns import Wanted
from models.data import Table
from models.errors import BadFile, BadInput
from models.objects import read_objects

BOXES = [[0, 0, 10, 5], [10.0, 5.0, 10.0, 5.0], [-5, 5, 10, 10], [25, 0, 5, 5], [0, 0, 20, 10]]
# Of images of 20 x 10 pixels; the third is cut, the fourth lies outside, and the last is a region of many.
SHARES = [("dog", 0.25, 0.25, 0.5, 0.5), ("cat", 0.75, 0.75, 0.5, 0.5), ("cat", 0.125, 0.75, 0.25, 0.5)]


def notes() -> dict[str, Any]:
    """Return what a file of COCO's says of three images."""
    annotations = [
        {"id": number, "image_id": (7, 7, 9, 9, 9)[number], "category_id": (18, 3, 3, 18, 3)[number], "bbox": box}
        for number, box in enumerate(BOXES)
    ]
    annotations[4]["iscrowd"] = 1
    return {
        "images": [{"id": one, "file_name": f"{one}.png", "width": 20, "height": 10} for one in (7, 8, 9)],
        "categories": [{"id": 3, "name": "cat"}, {"id": 18, "name": "dog"}],
        "annotations": annotations,
    }


def write(folder: Path, value: Any, images: str = "", name: str = "instances_small.json") -> Path:
    (folder / images).mkdir(parents=True, exist_ok=True)
    for number in (7, 8, 9):
        (folder / images / f"{number}.png").write_bytes(encoded(drawn(number, 10, 20, 3)))
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def read(source: object, **columns: str) -> Table:
    return read_objects(Wanted(str(source), **columns))


@pytest.mark.parametrize("images", ["", "images", "small"])
def test_images_lie_beside_their_notes(images: str, tmp_path: Path) -> None:
    path = write(tmp_path, notes(), images)
    found = read(path)
    assert found.labels == [tuple(SHARES[:2]), (), tuple(SHARES[2:])]
    assert found.images is not None
    assert [Path(str(image.content)).name for image in found.images] == ["7.png", "8.png", "9.png"]
    assert read(tmp_path).labels == found.labels  # a folder with one such file
    assert len(found.first(2)) == 2


@pytest.mark.parametrize("images", ["small", "images", "images/small"])
def test_images_may_lie_one_folder_up(images: str, tmp_path: Path) -> None:
    path = write(tmp_path, notes(), images, name="annotations/instances_small.json")
    assert read(path).labels == [tuple(SHARES[:2]), (), tuple(SHARES[2:])]


def test_the_digest_is_of_images_and_notes(tmp_path: Path) -> None:
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    first = read(write(one, notes()))
    assert read(write(two, notes())).digest == first.digest
    (two / "8.png").write_bytes(encoded(drawn(0, 10, 20, 3)))
    other = notes()
    other["annotations"].pop()
    assert len({first.digest, read(two).digest, read(write(three, other)).digest}) == 3


def test_images_without_notes_are_unlabelled(tmp_path: Path) -> None:
    value = notes()
    del value["annotations"]
    assert read(write(tmp_path, value)).labels is None
    (tmp_path / "instances_small.json").unlink()
    found = read(tmp_path)
    assert (len(found), found.labels) == (3, None)


def test_columns_of_images_and_objects(tmp_path: Path) -> None:
    images = [{"bytes": encoded(drawn(number, 10, 20, 3)), "path": None} for number in (7, 8, 9)]
    lists: list[Any] = [
        {"bbox": BOXES[:2], "category": ["dog", "cat"]},
        {"bbox": [], "category": []},
        {"bbox": BOXES[2:4], "category": ["cat", "dog"]},
    ]
    records = [
        [{"bbox": box, "category": kind} for box, kind in zip(row["bbox"], row["category"], strict=True)]
        for row in lists
    ]
    for name, objects in (("lists", lists), ("records", records)):
        path = tmp_path / f"{name}.parquet"
        pyarrow.parquet.write_table(pa.table({"image": images, "objects": objects}), path)
        assert read(path).labels == [tuple(SHARES[:2]), (), tuple(SHARES[2:])]
    pyarrow.parquet.write_table(pa.table({"image": images}), path)
    assert read(path).labels is None


@pytest.mark.parametrize("form", ["lists", "records"])
def test_a_hub_data_set_names_its_kinds(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, box = datasets.ClassLabel(names=["cat", "dog"]), datasets.List(datasets.Value("float32"), length=4)
    objects: Any = [
        {"category": [1, 0], "bbox": BOXES[:2]},
        {"category": [0], "bbox": BOXES[2:3]},
    ]
    feature: Any = {"category": datasets.List(kind), "bbox": datasets.List(box)}
    if form == "records":
        feature = datasets.List({"category": kind, "bbox": box})
        objects = [
            [{"category": one, "bbox": two} for one, two in zip(row["category"], row["bbox"], strict=True)]
            for row in objects
        ]
    images = [{"bytes": encoded(drawn(number, 10, 20, 3)), "path": None} for number in (7, 9)]
    features = datasets.Features({"image": datasets.Image(decode=False), "objects": feature})
    made = datasets.Dataset.from_dict({"image": images, "objects": objects}, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, configuration, split: made)
    assert read("somebody/things").labels == [tuple(SHARES[:2]), tuple(SHARES[2:])]


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"images": [], "annotations": []}, BadFile, "there are no images"),
        ({"images": []}, BadFile, "not in the form of COCO.*KeyError: 7"),
        ({"images": 3}, BadFile, "not in the form of COCO"),
        ({"categories": []}, BadFile, "not in the form of COCO.*KeyError: 18"),
        ({"annotations": [{"image_id": 5, "category_id": 3, "bbox": [0, 0, 1, 1]}]}, BadFile, "KeyError: 5"),
        ({"annotations": [{"image_id": 7, "category_id": 3, "bbox": [0, 0, 1]}]}, BadInput, "image 7.png has the box"),
        ({"annotations": [{"image_id": 7, "category_id": 3, "bbox": None}]}, BadInput, "not four numbers"),
        (
            {"annotations": [{"image_id": 7, "category_id": 3, "bbox": [0, 0, 1, float("inf")]}]},
            BadInput,
            "of 20 x 10 pixels has the box",
        ),
        (
            {"annotations": [{"image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 1]}] * 1001},
            BadInput,
            "1001 objects, and 1000 are the most",
        ),
    ],
)
def test_notes_that_are_none(change: dict[str, Any], error: type[Exception], says: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=says):
        read(write(tmp_path, notes() | change))


def test_names_of_images_are_not_trusted(tmp_path: Path) -> None:
    for name, says in (("../7.png", "unsafe path"), ("/etc/passwd", "unsafe path"), ("5.png", "'5.png' is not there")):
        value = notes()
        value["images"][0]["file_name"] = name
        with pytest.raises((BadFile, BadInput), match=says):
            read(write(tmp_path / "data", value))
    value = notes()
    value["images"][2]["file_name"] = "5.png"
    with pytest.raises(BadInput, match="1 of its images are not there: 5.png"):
        read(write(tmp_path / "data", value))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, notes())
    (tmp_path / "more.json").write_text("{}")
    with pytest.raises(BadInput, match="holds 2 JSON files, instances_small.json and others"):
        read(tmp_path)
    path.write_text('{"images": [')
    with pytest.raises(BadFile, match="not in the form of COCO"):
        read(path)
    with pytest.raises(BadInput, match="no such file"):
        read(tmp_path / "nothing.json")
    image = {"bytes": encoded(drawn(7, 10, 20, 3)), "path": None}
    for value in ({"bbox": BOXES[:2], "category": ["dog"]}, {"bbox": BOXES[:1]}, "dog"):
        pyarrow.parquet.write_table(pa.table({"image": [image], "objects": [value]}), tmp_path / "rows.parquet")
        with pytest.raises(BadInput, match="row 1 has objects that are not bbox and category"):
            read(tmp_path / "rows.parquet")
