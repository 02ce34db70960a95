"""Recall: the teacher finds all that it finds, and of another order a part."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from support.examples import tiny_checkpoint

import retrieval
from models.kinds import Reads
from models.shape import HeadShape


def test_recall_is_the_share_of_what_is_found_too() -> None:
    theirs = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]  # one asks; the first of three others is the same
    theirs[2:] += 0.1
    ours = theirs[[0, 2, 1, 3]]
    assert retrieval.recalls(theirs, theirs, queries=1, k=2).tolist() == [1.0]
    assert retrieval.recalls(ours, theirs, queries=1, k=1).tolist() == [0.0]
    assert retrieval.recalls(ours, theirs, queries=1, k=3).tolist() == [1.0]


def test_a_model_finds_what_it_finds_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head = HeadShape((), task="sentence-embedding", reads=Reads.MEAN, width=32, normalized=True)
    (tmp_path / "model").mkdir()
    tiny_checkpoint(head=head).save(tmp_path / "model")
    (tmp_path / "texts.csv").write_text("text\n" + "\n".join(f"w{one} w{one % 7 + 2}" for one in range(2, 50)))
    arguments = [str(tmp_path / "model"), "--teacher", str(tmp_path / "model"), "--data", str(tmp_path / "texts.csv")]
    monkeypatch.setattr(sys, "argv", ["retrieval.py", *arguments, "--queries", "8", "--cache", str(tmp_path / "cache")])
    retrieval.main()
    shown = capsys.readouterr().out
    assert "8 texts ask, 40 are searched" in shown
    assert "cosine with the teacher: mean 1.0000" in shown
    assert "| 10 | 1.000 | 1.000 to 1.000 |" in shown
