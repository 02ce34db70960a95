"""From a table of images to pixels: decoded once, kept on disk, read through memory maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from models.content import Pixels
from models.data import Table
from models.encoded import Encoded
from models.errors import BadFile, BadInput
from models.files import digest_of
from models.imaging import Imaging
from models.kept import Notes, kept
from models.token_cache import Expected, digest_of_targets, mapped

_FORMAT = 1
_ARRAYS = ("pixels", "targets")
_STEP = 1000  # images between two reports of progress


def encode_images(
    table: Table,
    imaging: Imaging,
    targets: Expected | None,
    *,
    tokens: int,
    cache: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Encoded:
    """Return a table of images as pixels, each of so many `tokens`, from the cache directory if they are there, else
    decoded and put there.

    `targets` (rows, ...) go along; without any every row is unlabelled, -1. An entry of the cache appears whole or not
    at all, and is made anew when its files are not what was written.

    Raises:
        BadInput: the rows are no images, or one cannot be decoded; it is named.
    """
    if table.images is None:
        raise BadInput("the rows are texts, and the model reads images", where=table.source)
    if targets is None:
        targets = np.full(len(table), -1, dtype=np.int64)
    assert isinstance(targets, np.ndarray)
    key = {
        "format": _FORMAT,
        "table": table.digest,
        "imaging": imaging.digest,
        "targets": digest_of_targets(targets),
    }
    entry = cache / f"pixels-{digest_of(key)[:32]}"
    size = (len(table), imaging.channels, imaging.height, imaging.width)
    images = table.images

    def write(directory: Path) -> Notes:
        pixels: Any = np.lib.format.open_memmap(directory / "pixels.npy", mode="w+", dtype=np.uint8, shape=size)
        for row, image in enumerate(images):
            pixels[row] = imaging.pixels(image)
            if progress is not None and ((row + 1) % _STEP == 0 or row + 1 == len(table)):
                progress(row + 1, len(table))
        pixels.flush()
        np.save(directory / "targets.npy", targets, allow_pickle=False)
        return {"digest": digest_of(key)}

    files = [f"{name}.npy" for name in _ARRAYS]
    return kept(entry, files=files, write=write, read=lambda notes: _read(entry, notes, imaging, tokens))


def _read(entry: Path, notes: Notes, imaging: Imaging, tokens: int) -> Encoded:
    """Return an entry of the cache; BadFile where it does not fit together."""
    if "digest" not in notes:
        raise BadFile("not a record of pixels", where=str(entry))
    pixels, targets = (mapped(entry / f"{name}.npy") for name in _ARRAYS)
    if len(pixels) != len(targets):
        raise BadFile("the arrays do not fit together", where=str(entry))
    offsets = np.arange(len(pixels) + 1, dtype=np.int64) * tokens
    return Encoded(Pixels(pixels, imaging), offsets, targets, 0, digest_of([str(notes["digest"]), tokens]))
