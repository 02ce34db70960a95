"""The benchmark of what a token costs, on short texts."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import writing_curve

LENGTHS = (32, 64, 128, 256, 512, 1024, 2048)


def rows(way: str, linear: float, square: float) -> list[writing_curve.Row]:
    return [writing_curve.Row(way, n, (0.5 + linear * n + square * n * n,) * 3) for n in LENGTHS]


def test_the_share_that_is_square_is_found() -> None:
    assert writing_curve.square_share(rows("line", 1e-3, 0.0)) == pytest.approx(0.0, abs=1e-6)
    whole = 0.5 + 1e-3 * 2048 + 1e-6 * 2048**2
    assert writing_curve.square_share(rows("square", 1e-3, 1e-6)) == pytest.approx(1e-6 * 2048**2 / whole)


def test_it_measures_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "writing.svg"
    for name, small in (
        ("LAYERS", 1),
        ("HIDDEN", 16),
        ("WORDS", 32),
        ("LAYER", writing_curve.LayerShape(2, 8, 16, causal=True)),
    ):
        monkeypatch.setattr(writing_curve, name, small)
    words = ["writing_curve.py", "--lengths", "4", "8", "16", "--rounds", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    writing_curve.main()
    printed = capsys.readouterr().out
    assert [line.split(" | ")[0] for line in printed.splitlines() if line.startswith("| ")][1:] == [
        "| 4",
        "| 8",
        "| 16",
    ]
    drawn = ElementTree.parse(out).getroot()
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}polyline"))) == 2
