"""The report as files beside a run's artifacts, and what devices sent back for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compress.device_record import DeviceReport, read_device_report
from compress.ledger import BUNDLE_FOLDER
from compress.record import RunResult
from compress.report.data import Report, make_report
from compress.report.html import render_html
from export.manifest import MANIFEST_FILE, Manifest, read_record
from models.errors import BadInput
from models.files import digest_of, write_text

DEVICES_FOLDER = "devices"


def write_report(result: RunResult, directory: Path) -> Report:
    """Write `report.json` and `report.html` of a run and return what they tell."""
    report = make_report(result, devices=_devices(directory))
    write_text(directory / "report.json", report.model_dump_json(indent=1) + "\n")
    write_text(directory / "report.html", render_html(report))
    return report


def add_devices(run: Path, files: Sequence[Path]) -> None:
    """Keep what devices told of the run's bundle with the run: all of the files, or none.

    Raises:
        BadFile: a file is no such report.
        BadInput: the run has no bundle, or a file is of another one.
    """
    told = {file: read_device_report(file) for file in files}
    if not told:
        return
    own = _bundle(run)
    if own is None:
        raise BadInput("the run has handed over no bundle, so no device has run it", where=str(run))
    for file, report in told.items():
        if report.bundle != own:
            raise BadInput(
                f"is of the bundle {report.bundle[:12]}, the run's is {own[:12]}",
                where=str(file),
                fix="Copy the run's bundle to the device and measure there again.",
            )
    for report in told.values():
        name = digest_of(report.model_dump(mode="json"))[:16]
        write_text(run / DEVICES_FOLDER / f"{name}.json", report.model_dump_json(indent=1) + "\n")


def _devices(run: Path) -> list[DeviceReport]:
    """Return what devices told of the bundle that the run has now; of an earlier one's it is kept, and not told."""
    files = sorted((run / DEVICES_FOLDER).glob("*.json"))
    own = _bundle(run) if files else None
    return [report for report in map(read_device_report, files) if report.bundle == own]


def _bundle(run: Path) -> str | None:
    manifest = run / BUNDLE_FOLDER / MANIFEST_FILE
    return read_record(Manifest, manifest).digest if manifest.exists() else None
