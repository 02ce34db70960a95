"""Tables of images, from every kind of source."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from support.images import drawn, encoded

from models.columns import Wanted
from models.content import Pixels
from models.encoding import encode
from models.errors import BadFile, BadInput
from models.images import read_images
from models.imaging import Imaging
from models.new_tokenizer import train_byte_level_bpe
from models.shape import ImageShape
from models.tasks.image_classification import ImageClassification

TASK = ImageClassification()
IMAGING = Imaging.of(ImageShape(8, 8, 4, channels=1))
KINDS = ("cat", "cat", "dog", "cat", "dog")
NAMES = [f"{kind}/{number}.png" for number, kind in enumerate(KINDS)]
TURNS = ["cat", "dog", "cat", "dog", "cat"]


def image(number: int) -> Any:
    return drawn(number, 8, 8)


def folder(root: Path) -> Path:
    for number, name in enumerate(NAMES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(image(number)))
    (root / "README.txt").write_text("no image")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "a.png").write_bytes(b"")
    return root


def archive(path: Path, names: list[str], **more: Any) -> Path:
    kind = {".tar": "w", ".tgz": "w:gz", ".gz": "w:gz", ".xz": "w:xz"}[path.suffix]
    with tarfile.open(path, kind) as stream:
        for number, name in enumerate(names):
            content = more.get(name, encoded(image(number)))
            member = tarfile.TarInfo(name)
            member.size = len(content)
            stream.addfile(member, io.BytesIO(content))
    return path


def idx(array: Any) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


def pixels(table: Any) -> list[Any]:
    return [IMAGING.pixels(one)[0] for one in table.images]


def numbers(table: Any) -> list[int]:
    """Return which of the drawn images each row is."""
    return [next(number for number in range(9) if np.array_equal(one, image(number))) for one in pixels(table)]


def test_a_folder_of_class_folders(tmp_path: Path) -> None:
    table = read_images(Wanted(str(folder(tmp_path / "data"))))
    assert table.labels == TURNS
    assert numbers(table) == [0, 2, 1, 4, 3]
    assert len(table) == 5
    assert list(table.first(2).labels or ()) == ["cat", "dog"]
    assert len(table.first(2)) == 2
    (tmp_path / "data" / NAMES[0]).write_bytes(encoded(image(8)))
    assert read_images(Wanted(str(tmp_path / "data"))).digest != table.digest


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "a.tar.xz"])
def test_an_archive_is_read_where_it_is(name: str, tmp_path: Path) -> None:
    path = archive(tmp_path / name, [f"train/{name}" for name in NAMES] + ["train/cat/notes.txt"])
    before = sorted(tmp_path.rglob("*"))
    table = read_images(Wanted(str(path)))
    assert (table.labels, numbers(table)) == (TURNS, [0, 2, 1, 4, 3])
    assert sorted(tmp_path.rglob("*")) == before


def test_folders_that_are_numbers_are_classes_in_their_order(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", ["10/a.png", "9/b.png", "9/c.png"])
    assert TASK.head_of(read_images(Wanted(str(path)))).labels == ("9", "10")


def test_images_in_no_folder_have_no_label(tmp_path: Path) -> None:
    assert read_images(Wanted(str(archive(tmp_path / "a.tar", ["a.png", "b.png"])))).labels is None
    with pytest.raises(BadInput, match=r"b\.png is in no folder of a class"):
        read_images(Wanted(str(archive(tmp_path / "b.tar", ["cat/a.png", "b.png"]))))


@pytest.mark.parametrize("name", ["../out/a.png", "/tmp/a.png", "cat/../../a.png"])
def test_a_name_that_climbs_out_is_refused(name: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", ["cat/a.png", name])
    with pytest.raises(BadFile, match="unsafe path"):
        read_images(Wanted(str(path)))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_link_is_refused(kind: bytes, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as stream:
        member = tarfile.TarInfo("cat/a.png")
        member.type, member.linkname = kind, "/etc/passwd"
        stream.addfile(member)
    with pytest.raises(BadFile, match=r"cat/a\.png.*a link"):
        read_images(Wanted(str(tmp_path / "a.tar")))


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.xz"])
def test_a_broken_archive_is_said(name: str, tmp_path: Path) -> None:
    path = archive(tmp_path / name, NAMES)
    whole = path.read_bytes()
    for part in (len(whole) // 3, len(whole) // 2 if name == "a.tar" else len(whole) - 9):
        path.write_bytes(whole[:part])
        with pytest.raises(BadFile, match="not a whole archive"):
            read_images(Wanted(str(path)))
    path.write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(BadFile, match="not a whole archive"):
        read_images(Wanted(str(path)))


def test_an_archive_without_images_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there are no images.*\.png"):
        read_images(Wanted(str(archive(tmp_path / "a.tar", ["cat/notes.txt"]))))


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("dot", ["-", "."])
def test_idx_files_with_their_labels_beside(ending: str, dot: str, tmp_path: Path) -> None:
    pack = gzip.compress if ending else bytes
    path = tmp_path / f"t10k-images{dot}idx3-ubyte{ending}"
    path.write_bytes(pack(idx(np.stack([image(number) for number in range(3)]))))
    assert read_images(Wanted(str(path))).labels is None
    (tmp_path / f"t10k-labels{dot}idx1-ubyte{ending}").write_bytes(pack(idx(np.array([2, 0, 2]))))
    table = read_images(Wanted(str(path)))
    assert (table.labels, numbers(table)) == ([2, 0, 2], [0, 1, 2])
    assert TASK.head_of(table).labels == ("0", "2")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not an IDX file|declares"),
        (b"\x00\x00\x09\x03" + bytes(12), "not an IDX file of bytes"),
        (bytes([0, 0, 8, 9]), "not an IDX file of bytes"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "declares an array of"),
        (bytes([0, 0, 8, 3]) + bytes(12), "declares an array of"),
        (idx(drawn(0, 2, 4, 4))[:-1], "declares 32 bytes and holds 31"),
        (idx(drawn(0, 2, 4, 4)) + b"x", "declares 32 bytes and holds more"),
        (idx(drawn(0, 2, 4)), "an array of 2 axes, not images"),
    ],
)
def test_a_broken_idx_file_is_said(data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(data)
    with pytest.raises(BadFile, match=says):
        read_images(Wanted(str(path)))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(drawn(0, 2, 4, 4)))[:-9])
    with pytest.raises(BadFile, match="not a whole IDX file"):
        read_images(Wanted(str(tmp_path / "train-images-idx3-ubyte.gz")))


def test_a_label_count_that_does_not_fit_is_said(tmp_path: Path) -> None:
    (tmp_path / "images-idx3-ubyte").write_bytes(idx(drawn(0, 3, 4, 4)))
    (tmp_path / "labels-idx1-ubyte").write_bytes(idx(np.array([1, 2])))
    with pytest.raises(BadFile, match="labels-idx1-ubyte: 3 images, and 2 labels beside them"):
        read_images(Wanted(str(tmp_path / "images-idx3-ubyte")))


def parquet(path: Path, images: list[Any], **columns: Any) -> str:
    pyarrow.parquet.write_table(pa.table({"image": pa.array(images), **columns}), path)
    return str(path)


def test_a_column_of_records_or_of_bytes(tmp_path: Path) -> None:
    files = [encoded(image(number)) for number in range(3)]
    records = [{"bytes": one, "path": f"{number}.png"} for number, one in enumerate(files)]
    for images in (files, records):
        table = read_images(Wanted(parquet(tmp_path / "a.parquet", images, label=["a", "b", "a"])))
        assert (table.labels, numbers(table)) == (["a", "b", "a"], [0, 1, 2])
    assert read_images(Wanted(parquet(tmp_path / "b.parquet", files))).labels is None


def test_a_path_in_a_file_stays_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "inside.png").write_bytes(encoded(image(0)))
    table = read_images(Wanted(parquet(tmp_path / "a.parquet", [{"bytes": None, "path": "inside.png"}] * 2)))
    assert numbers(table) == [0, 0]
    for name in ("/etc/passwd", "../a.png"):
        with pytest.raises(BadFile, match="unsafe path"):
            read_images(Wanted(parquet(tmp_path / "b.parquet", [{"bytes": None, "path": name}])))


@pytest.mark.parametrize("images", [[{"bytes": b"", "path": None}, None], ["a text", "b"], [1, 2]])
def test_a_row_without_an_image_is_said(images: list[Any], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"row \d has no image in the column 'image'"):
        read_images(Wanted(parquet(tmp_path / "a.parquet", images)))


def test_the_column_may_be_named(tmp_path: Path) -> None:
    files = [encoded(image(number)) for number in range(2)]
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({"scan": pa.array(files), "kind": pa.array(["x", "y"])}), path)
    with pytest.raises(BadInput, match="no image column found among the columns scan, kind.*holds the image"):
        read_images(Wanted(str(path)))
    assert read_images(Wanted(str(path), text="scan", label="kind")).labels == ["x", "y"]


def test_a_source_that_is_not_there_is_said(tmp_path: Path) -> None:
    for name in ("nowhere.tar", "nowhere.tar.xz", "nowhere.parquet"):
        with pytest.raises(BadInput, match="there is no such file"):
            read_images(Wanted(str(tmp_path / name)))


def test_a_hub_data_set_with_images(monkeypatch: pytest.MonkeyPatch) -> None:
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"img": [{"bytes": encoded(image(number)), "path": None} for number in range(3)], "label": [1, 0, 1]}
    made = datasets.Dataset.from_dict(rows, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, configuration, split: made)
    table = read_images(Wanted("some-org/pictures"), "test")
    assert (table.labels, numbers(table)) == (["dog", "cat", "dog"], [0, 1, 2])


def encoded_rows(table: Any, cache: Path) -> Any:
    return encode(table, IMAGING, TASK.targets(table, ("cat", "dog")), max_length=5, cache=cache)


def test_images_become_arrays_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = read_images(Wanted(str(folder(tmp_path / "data"))))
    seen: list[tuple[int, int]] = []
    told = {"max_length": 5, "cache": tmp_path / "cache", "progress": lambda done, of: seen.append((done, of))}
    data = encode(table, IMAGING, TASK.targets(table, ("cat", "dog")), **told)
    assert seen == [(5, 5)]
    monkeypatch.setattr(Imaging, "pixels", lambda *told: pytest.fail("decoded again"))
    again = encode(table, IMAGING, TASK.targets(table, ("cat", "dog")), **told)
    assert again.digest == data.digest
    assert isinstance(again.content, Pixels)
    assert isinstance(again.content.values, np.memmap)
    assert (len(again), again.lengths.tolist(), again.targets.tolist()) == (5, [5] * 5, [0, 1, 0, 1, 0])
    batch = again.batch(np.array([3, 0]))
    assert (batch.mask.shape, bool(batch.mask.all()), batch.targets.tolist()) == ((2, 5), True, [1, 0])
    expected = IMAGING.normalised(np.stack([image(4)[None], image(0)[None]]))
    np.testing.assert_array_equal(batch.inputs["pixel_values"].numpy(), expected)


def test_what_decides_the_arrays_makes_another_entry(tmp_path: Path) -> None:
    table = read_images(Wanted(str(folder(tmp_path / "data"))))
    digests = {
        encoded_rows(table, tmp_path).digest,
        encoded_rows(table.first(4), tmp_path).digest,
        encode(table, IMAGING, None, max_length=5, cache=tmp_path).digest,
        encode(table, Imaging.of(ImageShape(4, 8, 4, channels=1)), None, max_length=3, cache=tmp_path).digest,
    }
    assert len(digests) == 4


def test_a_damaged_entry_is_made_anew(tmp_path: Path) -> None:
    table = read_images(Wanted(str(folder(tmp_path / "data"))))
    first = np.array(encoded_rows(table, tmp_path / "cache").content.values)
    (file,) = (tmp_path / "cache").glob("pixels-*/pixels.npy")
    file.write_bytes(file.read_bytes()[:-3])
    again = encoded_rows(table, tmp_path / "cache")
    np.testing.assert_array_equal(again.content.values, first)


def test_a_broken_image_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", NAMES, **{NAMES[3]: b"broken"})
    with pytest.raises(BadInput, match=r"a\.tar: cat/3\.png: not an image"):
        encoded_rows(read_images(Wanted(str(path))), tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_rows_can_be_drawn_and_joined(tmp_path: Path) -> None:
    from models.encoded import joined

    table = read_images(Wanted(str(folder(tmp_path / "data"))))
    data = encoded_rows(table, tmp_path)
    few = data.drawn(3, seed=1)
    assert (len(few), few.lengths.tolist()) == (3, [5, 5, 5])
    both = joined([data, few])
    assert len(both) == 8
    np.testing.assert_array_equal(
        both.batch(np.array([5])).inputs["pixel_values"], few.batch(np.array([0])).inputs["pixel_values"]
    )


def test_images_and_texts_are_not_taken_for_one_another(tmp_path: Path) -> None:
    from models.data import Table

    table = read_images(Wanted(str(folder(tmp_path / "data"))))
    tokenizing = train_byte_level_bpe(["a"], vocab_size=300, max_length=9)
    with pytest.raises(BadInput, match="rows are images, and the model reads texts"):
        encode(table, tokenizing, None, max_length=9, cache=tmp_path)
    with pytest.raises(BadInput, match="rows are texts, and the model reads images"):
        encode(Table(["a"], None, None, "here", "0"), IMAGING, None, max_length=5, cache=tmp_path)
    with pytest.raises(BadInput, match="no token numbers"):
        _ = encoded_rows(table, tmp_path).tokens


def test_images_are_moved_and_mirrored_anew_but_only_where_asked(tmp_path: Path) -> None:
    import torch

    table = read_images(Wanted(str(folder(tmp_path / "data"))))
    data = encoded_rows(table, tmp_path)
    moved = data.moved
    assert moved.digest != data.digest
    rows = np.arange(5)

    def read(seed: int) -> Any:
        torch.manual_seed(seed)
        return moved.batch(rows).inputs["pixel_values"].numpy()

    plain = data.batch(rows).inputs["pixel_values"].numpy()
    np.testing.assert_array_equal(read(0), read(0))
    assert not np.array_equal(read(0), read(1))
    black = float(IMAGING.normalised(np.zeros((1, 1, 1, 1), dtype=np.uint8)).item())
    framed = np.pad(plain, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=black)
    for one, whole in zip(read(0)[:, 0], framed[:, 0], strict=True):
        cuts = [whole[top : top + 8, left : left + 8] for top in range(3) for left in range(3)]
        assert any(np.array_equal(one, cut) or np.array_equal(one, cut[:, ::-1]) for cut in cuts)
    with pytest.raises(BadInput, match="texts cannot be shifted"):
        from support.examples import random_rows

        _ = random_rows(3).moved
