"""The drawing of a run as a file of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.runs import make_run

import frontier
from compress.report.data import make_report


def test_every_stage_is_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = make_report(make_run())
    (tmp_path / "report.json").write_text(report.model_dump_json())
    out = tmp_path / "frontier.svg"
    monkeypatch.setattr(sys, "argv", ["frontier.py", str(tmp_path), "--out", str(out)])
    frontier.main()
    drawing = ElementTree.parse(out).getroot()
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    written = "".join(drawing.itertext())
    assert all(stage.stage in written for stage in report.stages)
    assert "--" in (drawing[0].text or "")  # the page's style
