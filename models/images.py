"""Tables of images: folders and archives of class folders, IDX files, and columns of images.

Nothing is written to disk, and no name out of an archive or a table is trusted.
"""

from __future__ import annotations

import gzip
import lzma
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, final

import numpy as np
import numpy.typing as npt

from models.columns import Wanted
from models.data import Label, Table, as_numbers, labels_in, read_columns
from models.errors import BadFile, BadInput
from models.files import digest_of, inside, sha256_file
from models.imaging import Image

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz")
MOST_BYTES = 1 << 26  # of one image's file
MOST_VALUES = 1 << 32  # of an IDX file
_IDX = re.compile(r"(?P<name>.*)images(?P<dot>[-.])idx[34]-ubyte(?P<packed>\.gz)?")
_PACKED = {"gz": gzip.open, ".xz": lzma.open}
_UBYTE = 0x08
_BROKEN = (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError)


def read_images(wanted: Wanted, split: str | None = None) -> Table:
    """Return the images of a source, each with a label or all without.

    A folder, or an archive (`.tar`, `.tar.gz`, `.tgz`, `.tar.xz`), holds images in folders that are called as their
    class. Rows take turns in their classes, so that the first of them are of all classes. The labels of an IDX file
    `...images-idx3-ubyte.gz` are looked for beside it. Other files and hub data sets have a column of images.

    Raises:
        BadInput: no such source, one without images, or a row without one.
        BadFile: a broken file, an unsafe name in an archive, or not as many labels as images.
    """
    path = Path(wanted.source).expanduser()
    if path.is_dir():
        return _of_classes(list(_in_folder(path)), wanted.source, _tree_digest(path))
    if path.is_file() and path.name.lower().endswith(ARCHIVES):
        return _of_classes(list(_in_archive(path)), wanted.source, sha256_file(path))
    if path.is_file() and _IDX.fullmatch(path.name):
        return _of_idx(path, wanted.source)
    return _of_column(wanted, split, path.parent if path.is_file() else None)


def _in_folder(root: Path) -> Iterator[tuple[PurePosixPath, Path]]:
    for file in sorted(root.rglob("*")):
        name = PurePosixPath(file.relative_to(root).as_posix())
        if _is_image(name) and file.is_file():
            yield name, file


@final
class _Noting:
    """A stream that remembers what was read last: an archive that ends early is read without complaint otherwise."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        self.last = self.stream.read(size)
        return self.last

    def seek(self, place: int, whence: int = 0) -> int:
        """Go to a place."""
        return self.stream.seek(place, whence)

    def tell(self) -> int:
        """Return the place."""
        return self.stream.tell()


def _in_archive(path: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield the images of an archive; it must be whole, up to the block of zeros that ends it."""
    opened: Any = next((how for end, how in _PACKED.items() if path.name.lower().endswith(end)), open)
    try:
        with opened(path, "rb") as packed:
            noting: Any = _Noting(packed)
            archive = tarfile.open(fileobj=noting, mode="r:")  # noqa: SIM115
            for member in archive:
                name = PurePosixPath(member.name)
                if member.isdir() or not _is_image(name):
                    continue
                inside(path, str(name))  # what is not safe is refused, although nothing is written
                stream = archive.extractfile(member) if member.isreg() else None
                if stream is None or member.size > MOST_BYTES:
                    raise BadFile(f"holds {member.name!r}, which is a link or too large", where=str(path))
                yield name, stream.read()
            if noting.last != bytes(tarfile.BLOCKSIZE):
                raise BadFile("not a whole archive (it ends early)", where=str(path), fix="Fetch it again.")
            while packed.read(1 << 20):  # to the checksum of what is packed
                continue
    except _BROKEN as error:
        raise BadFile(f"not a whole archive ({error})", where=str(path), fix="Fetch it again.") from None


def _is_image(name: PurePosixPath) -> bool:
    return name.suffix.lower() in ENDINGS and not any(part.startswith(".") and part != ".." for part in name.parts)


def _tree_digest(root: Path) -> str:
    return digest_of([[str(name), sha256_file(file)] for name, file in _in_folder(root)])


def _of_classes(found: Sequence[tuple[PurePosixPath, Path | bytes]], source: str, digest: str) -> Table:
    """Return a table of images whose folder names their class, those of all classes in turns."""
    if not found:
        raise BadInput("there are no images", where=source, fix=f"Known endings: {', '.join(ENDINGS)}.")
    classes = [name.parent.name for name, _ in found]
    loose = [str(name) for (name, _), kind in zip(found, classes, strict=True) if not kind]
    if loose and len(loose) < len(found):
        raise BadInput(f"{loose[0]} is in no folder of a class, as others are", where=source)
    seen: Counter[str] = Counter()
    turns = []
    for kind in classes:
        turns.append(seen[kind])
        seen[kind] += 1
    order = sorted(range(len(found)), key=lambda row: (turns[row], classes[row], row))
    labels: list[Label] | None = None if loose else as_numbers([classes[row] for row in order])
    images = [Image(f"{source}: {found[row][0]}", found[row][1]) for row in order]
    return Table([], None, labels, source, digest, images)


def _of_idx(path: Path, source: str) -> Table:
    found = _IDX.fullmatch(path.name)
    assert found is not None
    pixels = _idx(path)
    if pixels.ndim not in (3, 4):
        raise BadFile(f"holds an array of {pixels.ndim} axes, not images", where=str(path))
    digests: list[str | None] = [sha256_file(path), None]
    labels: list[Label] | None = None
    beside = [path.with_name(f"{found['name']}labels{found['dot']}idx1-ubyte{packed}") for packed in ("", ".gz")]
    for file in (one for one in beside if one.is_file()):
        classes = _idx(file)
        if classes.ndim != 1 or len(classes) != len(pixels):
            raise BadFile(f"{len(pixels)} images, and {classes.size} labels beside them", where=str(file))
        labels, digests[1] = [int(label) for label in classes], sha256_file(file)
        break
    images = [Image(f"{source}, image {row}", one) for row, one in enumerate(pixels, start=1)]
    return Table([], None, labels, source, digest_of(digests), images)


def _idx(path: Path) -> npt.NDArray[np.uint8]:
    """Return the array of an IDX file (LeCun et al. 1998), plain or `.gz`.

    Raises:
        BadFile: not such a file, or it is not whole.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            zero, kind, axes = (int.from_bytes(stream.read(size), "big") for size in (2, 1, 1))
            if zero or kind != _UBYTE or not 1 <= axes <= 4:
                raise BadFile("not an IDX file of bytes", where=str(path))
            shape = [int.from_bytes(stream.read(4), "big") for _ in range(axes)]
            size = int(np.prod(shape, dtype=object))
            if not 0 < size <= MOST_VALUES:
                raise BadFile(f"declares an array of {shape}", where=str(path))
            data = stream.read(size + 1)
    except _BROKEN as error:
        raise BadFile(f"not a whole IDX file ({error})", where=str(path), fix="Fetch it again.") from None
    if len(data) != size:
        more = "more" if len(data) > size else f"{len(data)}"
        raise BadFile(f"declares {size} bytes and holds {more}", where=str(path), fix="Fetch it again.")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _of_column(wanted: Wanted, split: str | None, folder: Path | None) -> Table:
    columns, table, names, digest = read_columns(wanted._replace(kind="image"), split)
    labels = None
    if columns.label is not None:
        labels = labels_in(table[columns.label], columns.label, wanted.source, names, several=False)
    images = images_in(table[columns.text].to_pylist(), columns.text, wanted.source, folder)
    return Table([], None, labels, wanted.source, digest_of([digest, *columns]), images)


def images_in(cells: Sequence[Any], name: str, source: str, folder: Path | None) -> list[Image]:
    """Return the images in the cells of a column; those that are paths in a file are looked for in its folder.

    Raises:
        BadInput: a cell holds none.
        BadFile: an unsafe path.
    """
    images = []
    for row, value in enumerate(cells, start=1):
        content = _content(value, folder)
        if content is None:
            raise BadInput(
                f"row {row} has no image in the column '{name}'",
                where=source,
                fix="An image is the bytes of a file, or a record of `bytes` and `path`.",
            )
        images.append(Image(f"{source}, row {row}", content))
    return images


def _content(value: Any, folder: Path | None) -> bytes | Path | None:
    """Return the image in a cell; a path in a file is one inside the file's folder."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, dict):
        return None
    data, path = value.get("bytes"), value.get("path")
    if isinstance(data, bytes):
        return data
    if not isinstance(path, str):
        return None
    return Path(path) if folder is None else inside(folder, path)
