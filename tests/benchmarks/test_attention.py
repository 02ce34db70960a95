"""The benchmark of kinds of attention, on short texts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import attention
from compress.statistics import Interval


def row(kind: str, tokens: int, faster: float) -> attention.Row:
    return attention.Row(kind, tokens, 4.0, 4.0 / faster, Interval(faster, faster - 0.05, faster + 0.05))


ROWS = [
    row(kind, tokens, faster)
    for kind, ratios in (("window 64", (1.2, 0.9, 1.3, 5.0)), ("window 128", (0.8,) * 4), ("linear", (1.1, 1.3, 2, 7)))
    for tokens, faster in zip((64, 256, 1024, 4096), ratios, strict=True)
]


def test_a_kind_pays_from_where_no_longer_text_is_slower() -> None:
    assert [attention.pays_from(ROWS, kind) for kind in ("window 64", "window 128", "linear")] == [1024, None, 64]
    told = attention.table(ROWS)
    assert "| 4,096 | 4 | 0.8 | 5.00 (4.95-5.05) | 5 | 0.80 (0.75-0.85) | 0.571 | 7.00 (6.95-7.05) |" in told
    assert "window 128: faster than full attention at none of these lengths." in told


def test_the_drawing_has_a_line_for_every_kind() -> None:
    drawn = ElementTree.fromstring(attention.drawing(ROWS))
    name = "{http://www.w3.org/2000/svg}"
    assert len(list(drawn.iter(f"{name}polyline"))) == 3
    assert len(list(drawn.iter(f"{name}circle"))) == len(ROWS)
    written = "".join(drawn.itertext())
    assert all(kind in written for kind in ("window 64", "window 128", "linear", "4,096"))


def test_it_measures_texts_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "texts.jsonl", tmp_path / "attention.svg"
    file.write_text("".join(json.dumps({"text": f"import os {number}"}) + "\n" for number in range(9)))
    monkeypatch.setattr(attention, "TOKENS_PER_PASS", 8)
    words = ["attention.py", "--data", str(file), "--lengths", "4", "8", "--rounds", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    attention.main()
    printed = capsys.readouterr().out
    assert printed.startswith("9 texts of ")
    assert [line.split(" | ")[0] for line in printed.splitlines() if line.startswith("| ")][1:] == ["| 4", "| 8"]
    assert ElementTree.parse(out).getroot().tag == "{http://www.w3.org/2000/svg}svg"
