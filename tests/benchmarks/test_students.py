"""The benchmark of students made for the runtime, on a tiny teacher."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.examples import tiny_checkpoint, write_data

import students


@pytest.mark.slow
def test_students_are_made_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "teacher").mkdir()
    tiny_checkpoint().save(tmp_path / "teacher")
    data = [word for role, path in write_data(tmp_path).items() for word in (f"--{role}", path)]
    named = ["--teacher", str(tmp_path / "teacher"), *data, "--students", "plain", "relu-elementwise"]
    brief = ["--layers", "0", "--epochs", "0.5", "--rounds", "3", "--cache", str(tmp_path / "cache")]
    monkeypatch.setattr(sys, "argv", ["students.py", *named, *brief, "--out", str(tmp_path / "runs")])
    students.main()
    head, _, plain, made = capsys.readouterr().out.splitlines()
    assert {line.count("|") for line in (head, plain, made)} == {9}
    assert plain.startswith("| plain | ") and made.startswith("| relu-elementwise | ")
    assert plain.count("| +0.00 (") == 2  # beside itself
