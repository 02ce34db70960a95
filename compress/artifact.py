"""Sealed directories: they appear whole, and nobody writes into them afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from compress.record import ArtifactRecord, FileRecord
from models.errors import BadFile
from models.files import check_files, digest_files, digest_of, new_directory, read_json, write_json

RECORD_FILE = "artifact.json"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an artifact comes from: everything its key is the digest of, and its ancestors."""

    stage: str
    settings: dict[str, Any]
    parent: str | None
    inputs: dict[str, str]
    seed: int
    code: str
    lineage: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Return the digest of the inputs: the same key means the same artifact."""
        return digest_of(
            [self.stage, self.settings, self.parent, self.inputs, self.seed, self.code],
        )


def seal(
    directory: Path,
    origin: Origin,
    *,
    save: Callable[[Path], None],
    parameters: int,
    details: dict[str, Any],
) -> ArtifactRecord:
    """Write an artifact whole and return its record; an older artifact in its place is replaced at the end."""
    with new_directory(directory, replace=(directory / RECORD_FILE).exists()) as partial:
        save(partial)
        files = {name: FileRecord(sha256=sha, bytes=size) for name, (sha, size) in digest_files(partial).items()}
        record = ArtifactRecord(
            stage=origin.stage,
            key=origin.key,
            digest=_digest(files),
            parent=origin.parent,
            settings=origin.settings,
            seed=origin.seed,
            code=origin.code,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            files=files,
            parameters=parameters,
            lineage=list(origin.lineage),
            details=details,
        )
        write_json(partial / RECORD_FILE, record.model_dump(mode="json"))
    # As it will be read by every later call: JSON has no tuples.
    return read_record(directory)


def read_record(directory: Path) -> ArtifactRecord:
    """Return the record of a sealed directory, without checking its files.

    Raises:
        BadFile: there is none, or it is not one of ours.
    """
    try:
        return ArtifactRecord.model_validate(read_json(directory / RECORD_FILE))
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise BadFile(f"not the record of an artifact ({place}: {problem['msg']})", where=str(directory)) from None


def open_artifact(directory: Path) -> ArtifactRecord:
    """Return the record of a sealed directory after checking every file against it.

    Raises:
        BadFile: a file is missing, changed or was added; all of them are named.
    """
    record = read_record(directory)
    check_files(directory, {name: (file.sha256, file.bytes) for name, file in record.files.items()})
    strangers = sorted(set(digest_names(directory)) - set(record.files) - {RECORD_FILE})
    if strangers:
        raise BadFile(f"holds files that were not sealed: {', '.join(strangers)}", where=str(directory))
    if _digest(record.files) != record.digest:
        raise BadFile("the record's digest is not that of its files", where=str(directory), fix="Make it again.")
    return record


def _digest(files: Mapping[str, FileRecord]) -> str:
    return digest_of({name: file.sha256 for name, file in files.items()})


def digest_names(directory: Path) -> list[str]:
    """Return the relative names of all files below `directory`."""
    return sorted(file.relative_to(directory).as_posix() for file in directory.rglob("*") if file.is_file())
