"""The benchmark of models that write, on a tiny one."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.examples import tiny_tokenizing

import drawn_writer
import generation
from against_peers.tools import OWN, Tool
from compress.architectures import new_network
from compress.settings import ArchitectureSettings
from generation import AGAIN, BASELINE, TOOLS, Found, Way, rows_of, table_of
from models.checkpoint import Checkpoint
from models.columns import Wanted
from models.data import Table
from models.generation import generate, starts
from models.native_steps import NativeSteps
from models.parallel import read_written


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Return what the command line says of a tiny checkpoint and a file of lines."""
    sizes = {"layers": 1, "hidden_size": 32, "heads": 2, "ffn": 48, "positions": 24, "vocab_size": 290, "beams": 2}
    rows = Table(["a b", "b a"] * 9, None, [("A B",), ("B A",)] * 9, "rows", "0")
    made = new_network(ArchitectureSettings(**{**sizes, "family": "marian"}), rows, None, tmp_path)
    (tmp_path / "teacher").mkdir()
    Checkpoint.new(made.shape, made.reader, seed=0, generation=made.generation).save(tmp_path / "teacher")
    for ending in ("en", "de"):
        (tmp_path / f"test.{ending}").write_text("good film\nbad\nfilm bad bad\n")
    given = ["--checkpoint", str(tmp_path / "teacher"), "--data", str(tmp_path / "test.en"), "--label", "de"]
    return [*given, "--texts", "2", "--longest", "6", "--rounds", "1", "--threads", "1", "--json", str(tmp_path / "j")]


def test_a_drawn_model_writes_as_long_as_is_asked_for(tmp_path: Path) -> None:
    for ending in ("en", "de"):
        (tmp_path / f"test.{ending}").write_text("good film\nbad\nfilm bad bad\n")
    given = ["--data", str(tmp_path / "test.en"), "--label", "de", "--out", str(tmp_path / "model")]
    drawn_writer.main([*given, "--layers", "1", "--width", "32", "--words", "270"])
    model = Checkpoint.load(tmp_path / "model")
    assert model.generation is not None
    how = replace(model.generation, max_tokens=9, beams=1)
    (texts,) = generate(NativeSteps(model.network(), [[5, 6, 2]]), starts(how, 1), how)
    assert len(texts[0].tokens) == 9


@pytest.mark.slow
def test_every_model_has_a_row_for_every_way_of_writing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.py").write_text(
        "def build(checkpoint, texts, out):\n    raise RuntimeError('no such operator')\n"
    )
    generation.main(words, (TOOLS[0], Tool("broken", tmp_path / "broken.py", None)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Failed: broken: build: RuntimeError: no such operator"
    told = json.loads((tmp_path / "j").read_text())
    models = {BASELINE, "ours int8", "ours int8, searching", "ours int8 in blocks, searching", AGAIN}
    assert {(row["model"], row["beams"]) for row in told["rows"]} == {
        (name, beams) for name in models for beams in (1, 4)
    }
    assert len(lines) == 2 + len(told["rows"]) + 1
    # What is written twice by the same model is the same.
    assert {row["same"] for row in told["rows"] if row["model"] in (BASELINE, AGAIN)} == {1.0}
    # Where the search is does not change what is found.
    same = {(row["model"], row["beams"]): row["same"] for row in told["rows"]}
    assert all(same["ours int8", beams] == same["ours int8, searching", beams] for beams in (1, 4))
    assert all(len(row["rounds_ms"]) == 1 and row["tokens_a_second"] > 0 for row in told["rows"])


@pytest.mark.slow
def test_without_our_own_model_nothing_is_compared(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "def build(checkpoint, texts, out):\n    raise RuntimeError('no such operator')\n"
    )
    with pytest.raises(SystemExit, match="no such operator"):
        generation.main(words, (Tool(OWN, tmp_path / "broken.py", None),))


def test_an_unknown_peer_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit, match="known are ctranslate2, optimum, ours"):
        generation.main([*words, "--peer", "nobody"])


def test_a_model_that_writes_less_is_not_faster(tmp_path: Path) -> None:
    for ending in ("en", "de"):
        (tmp_path / f"test.{ending}").write_text("good film bad good\n")
    table = read_written(Wanted(str(tmp_path / "test.en"), label="de"))
    long = Found([[5, 6, 7, 8, 9]], [[60.0, 60.0]] * 2)
    short = Found([[5, 6]], [[30.0, 30.0]] * 2)
    rows = rows_of({Way(1, 4): {BASELINE: long, "short": short}}, tiny_tokenizing(), table)
    assert [row["ratio"]["estimate"] for row in rows] == pytest.approx([1.0, 1.0])
    assert [row["same"] for row in rows] == [1.0, 0.0]
    assert [row["texts_a_second"] for row in rows] == pytest.approx([1000 / 60, 1000 / 30])
    assert "| short | 1 | 4 | 100 | 33.3 | 1.00 (1.00-1.00) | 0 % | " in table_of(rows)


def test_every_peer_is_pinned() -> None:
    for tool in TOOLS:
        assert tool.script.is_file()
        lines = [] if tool.requirements is None else tool.requirements.read_text().splitlines()
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines if not line.startswith("#")), tool.name
