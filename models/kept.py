"""Directories of a cache: written once, checked when they are read, and written anew where they are not what was
written.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from models.errors import BadFile
from models.files import check_files, digest_files, new_directory, read_object, write_json

T = TypeVar("T")

RECORD = "meta.json"
Notes = Mapping[str, Any]


def kept(
    place: Path,
    *,
    files: Collection[str],
    write: Callable[[Path], Notes],
    read: Callable[[Notes], T],
    record: str = RECORD,
) -> T:
    """Return what `read` makes of a directory, which appears whole or not at all.

    `write` fills an empty directory with these `files` and returns what is noted about them in JSON, in the file
    `record`; `read` is given the notes once the files are those that were written. Where that raises BadFile the
    directory is thrown away and written anew.
    """
    if place.exists():
        try:
            return read(_noted(place, record, files))
        except BadFile:
            shutil.rmtree(place)
    with new_directory(place) as directory:
        notes = write(directory)
        write_json(directory / record, {**notes, "files": digest_files(directory)})
    return read(_noted(place, record, files))


def _noted(place: Path, record: str, files: Collection[str]) -> Notes:
    notes = read_object(place / record)
    try:
        expected = {str(name): (str(digest), int(size)) for name, (digest, size) in notes["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadFile(f"not a record of what is kept ({error})", where=str(place / record)) from error
    if set(expected) != set(files):
        raise BadFile(f"records other files than {', '.join(sorted(files))}", where=str(place / record))
    check_files(place, expected)
    return notes
