"""A run's own book: which artifact stands for which stage, and what was measured of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from compress.record import Measurement, RunResult
from models.errors import BadFile, BadInput
from models.files import digest_of, read_json, write_text

RUN_FILE = "run.json"
BUNDLE_FOLDER = "bundle"


@dataclass(frozen=True, slots=True)
class Ledger:
    """The files of a run outside its artifacts: `run.json` and `measurements/`."""

    directory: Path

    def check(self) -> None:
        """Refuse a directory that holds something else than a run.

        Raises:
            BadInput: it exists, is not empty, and holds no run of ours.
        """
        if not self.directory.exists():
            return
        if not self.directory.is_dir():
            raise BadInput("is a file, a run needs a directory", where=str(self.directory))
        names = {entry.name for entry in self.directory.iterdir()}
        ours = {RUN_FILE, "measurements", "scratch", ".lock"}
        if names and not names & ours:
            raise BadInput(
                f"the directory holds something else ({', '.join(sorted(names)[:3])})",
                where=str(self.directory),
                fix="Choose another --out or another name.",
            )

    def measurement(self, key: Any) -> Measurement | None:
        """Return the measurement taken under `key` (any JSON value), or None.

        A file that was damaged counts as none: it is measured again.
        """
        path = self._path(key)
        if not path.exists():
            return None
        try:
            return Measurement.model_validate(read_json(path))
        except (ValidationError, BadFile):
            return None

    def keep(self, key: Any, measurement: Measurement) -> None:
        """Write a measurement under `key`."""
        write_text(self._path(key), measurement.model_dump_json() + "\n")

    def scratch(self, name: str) -> Path:
        """Return a directory for unfinished work; it survives a kill, and whoever finishes the work removes it."""
        path = self.directory / "scratch" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def finish(self, result: RunResult) -> None:
        """Write `run.json`."""
        write_text(self.directory / RUN_FILE, result.model_dump_json(indent=1) + "\n")

    def result(self) -> RunResult:
        """Return the run as it was last written.

        Raises:
            BadFile: there is no finished run here, or `run.json` is not one of ours.
        """
        try:
            return RunResult.model_validate(read_json(self.directory / RUN_FILE))
        except ValidationError as error:
            raise BadFile(f"not a run's record ({error.error_count()} problems)", where=str(self.directory)) from None

    def _path(self, key: Any) -> Path:
        return self.directory / "measurements" / f"{digest_of(key)}.json"
