"""The report as files beside a run's artifacts."""

from __future__ import annotations

from pathlib import Path

from compress.record import RunResult
from compress.report.data import make_report
from compress.report.html import render_html
from models.files import write_text


def write_report(result: RunResult, directory: Path) -> str:
    """Write `report.json` and `report.html` of a run and return the former's text."""
    report = make_report(result)
    text = report.model_dump_json(indent=1)
    write_text(directory / "report.json", text + "\n")
    write_text(directory / "report.html", render_html(report))
    return text
