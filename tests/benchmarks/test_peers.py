from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from support.examples import tiny_checkpoint, write_data

import against_peers.contest
import peers
from against_peers.environments import interpreter
from against_peers.measure import Times, Workload, answers, loads, timings
from against_peers.results import Finding, accuracy, findings
from against_peers.table import below, table
from against_peers.tools import ONNXRUNTIME, OWN, TOOLS, Failed, Model, Tool, last_line
from against_peers.workloads import Shape, spread_rows
from export.lower import lower
from export.target import CPU

BROKEN = "def build(checkpoint, texts, out):\n    raise RuntimeError('no such operator')\n"
COPY = """
import shutil
def build(checkpoint, texts, out):
    assert texts[0]["ids"] and len(texts[0]["ids"]) == len(texts[0]["kinds"])
    shutil.copy({source!r}, out / "model.onnx")
    return {{{name!r}: "model.onnx"}}
"""


class Ran(NamedTuple):
    printed: str
    written: dict[str, Any]


def script(folder: Path, name: str, text: str, *, requirements: str | None = None) -> Tool:
    """Return a tool made of a script, which is run here unless it has requirements."""
    (folder / f"{name}.py").write_text(text)
    wanted = None
    if requirements is not None:
        wanted = folder / f"{name}.txt"
        wanted.write_text(requirements)
    return Tool(name, folder / f"{name}.py", wanted)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny teacher's graph."""
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    path.write_bytes(lower(tiny_checkpoint().network(), CPU).SerializeToString())
    return path


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, graph: Path) -> Ran:
    """Return what the command gave for peers that work and peers that do not."""
    folder = tmp_path_factory.mktemp("peers")
    tiny_checkpoint().save(folder / "teacher")
    data = write_data(folder)
    (folder / "torn.onnx").write_bytes(b"\x08torn")
    tools = [
        script(folder, "plain", COPY.format(source=str(graph), name="onnxruntime fp32")),
        script(folder, "absent", BROKEN, requirements="./nowhere-1.0-py3-none-any.whl\n"),
        script(folder, "broken", BROKEN),
        script(folder, "torn", COPY.format(source=str(folder / "torn.onnx"), name="torn int8")),
        next(tool for tool in TOOLS if tool.name == OWN),
    ]
    words = ["--checkpoint", str(folder / "teacher"), "--data", data["validation"], "--lengths", data["test"]]
    words += ["--bundle", f"mine={folder / 'out' / OWN / 'int8'}", "--out", str(folder / "out")]
    words += ["--shapes", "1x4", "2x8", "1x64", "--threads", "1", "--rounds", "2", "--venvs", str(folder / "venvs")]
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(against_peers.contest, "LAUNCHES", 1)
        patch.setattr(peers, "print", lambda *text, **_: said.append(" ".join(map(str, text))), raising=False)
        peers.main([*words, "--json", str(folder / "all.json")], tools)
    return Ran("\n".join(said), json.loads((folder / "all.json").read_text()))


@pytest.mark.slow
def test_every_model_that_works_has_a_row(ran: Ran) -> None:
    rows = [line.split(" | ") for line in ran.printed.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == [
        "| model",
        "| onnxruntime fp32",
        "| ours fp32",
        "| ours int8",
        "| mine",
        "| ours fp32 again",
    ]
    assert len({len(row) for row in rows}) == 1
    for row in rows[1:]:
        cells = dict(zip(rows[0], row, strict=True))
        assert cells["1x64"] == "-"  # longer than the model's positions
        assert re.fullmatch(r"[\d.]+ / [\d.]+", cells["2x8"])
        assert float(cells["MB"]) >= 0
        assert float(cells["memory MB"]) > 10


@pytest.mark.slow
def test_what_failed_is_said(ran: Ran) -> None:
    failures = {failure["name"]: failure for failure in ran.written["failures"]}
    assert {name: failure["step"] for name, failure in failures.items()} == {
        "absent": "install",
        "broken": "build",
        "torn int8": "run",
    }
    assert "nowhere" in failures["absent"]["reason"]
    assert failures["broken"]["reason"] == "RuntimeError: no such operator"
    for failure in failures.values():
        assert f"Failed: {failure['name']}: {failure['step']}: {failure['reason']}" in ran.printed


@pytest.mark.slow
def test_the_file_holds_everything(ran: Ran) -> None:
    models = {model["name"]: model for model in ran.written["models"]}
    same = models["onnxruntime fp32"]["accuracy"]
    assert same["same_top_label"] == 1.0
    assert same["largest_output_difference"] < 1e-4
    assert (same["teacher_alone_right"], same["model_alone_right"], same["n"]) == (0, 0, 60)
    assert models["ours int8"]["bytes"] < models["ours fp32"]["bytes"]
    assert models["mine"]["build_seconds"] is None
    assert models["ours int8"]["build_seconds"] > 0
    found = models["ours int8"]["latency"]["1"]
    assert set(found) == {"1x4", "2x8", "lengths", "end to end"}
    for latency in found.values():
        assert 0 < latency["p50_ms"] <= latency["p95_ms"]
        assert [len(passes) for passes in latency["rounds_ms"]] == [2, 2]
        assert latency["ratio"]["low"] <= latency["ratio"]["estimate"] <= latency["ratio"]["high"]
    assert 0 < found["end to end"]["tokenise_p50_ms"] < found["end to end"]["p50_ms"]
    assert set(ran.written["control"]["1"]) == set(found)
    assert ran.written["baseline"] == "onnxruntime fp32"
    assert {(one["own"], one["peer"]) for one in ran.written["findings"]} == {
        ("ours int8", "onnxruntime fp32"),
        ("mine", "onnxruntime fp32"),
    }


def test_without_our_teacher_nothing_is_compared(tmp_path: Path) -> None:
    tiny_checkpoint().save(tmp_path / "teacher")
    data = write_data(tmp_path)["test"]
    words = ["--checkpoint", str(tmp_path / "teacher"), "--data", data, "--lengths", data]
    with pytest.raises(SystemExit, match=r"nothing to compare with .ours: build: RuntimeError: no such operator"):
        peers.main(words, [script(tmp_path, OWN, BROKEN)])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--peer", "nobody"], "not all of nobody are known"),
        (["--out", "."], "the directory is not empty"),
        (["--lengths", "nowhere.tsv"], "there is no such file"),
    ],
)
def test_bad_words_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_checkpoint().save(tmp_path / "teacher")
    data = write_data(tmp_path)["test"]
    words = ["--checkpoint", str(tmp_path / "teacher"), "--data", data, "--lengths", data]
    with pytest.raises(SystemExit, match=message):
        peers.main([*words, *more], [])


def model(file: Path, name: str = "one") -> Model:
    return Model(name, "fake", file, file.parent, ONNXRUNTIME, sys.executable)


CALL = {"ids": [[2, 3, 4]], "kinds": [[0, 0, 0]]}
BEYOND = {"ids": [[10**6]], "kinds": [[0]]}


def test_a_model_that_stops_working_is_dropped_and_the_others_go_on(graph: Path) -> None:
    given = {"good": {"short": Workload([CALL] * 3)}, "bad": {"short": Workload([CALL, BEYOND])}}
    times, failures = timings(
        [model(graph, "good"), model(graph, "bad")],
        lambda one: given[one.name],
        sys.executable,
        threads=1,
        rounds=5,
        tell=lambda what: None,
    )
    assert [len(passes) for passes in times["good"]["short"].rounds] == [2] * 5
    assert {len(calls) for passes in times["good"]["short"].rounds for calls in passes} == {3}
    assert [failure.name for failure in failures] == ["bad"]
    assert set(times) == {"good"}


def test_a_model_that_does_not_load_is_a_result(graph: Path, tmp_path: Path) -> None:
    found, failures = loads([model(graph, "good"), model(tmp_path / "none.onnx", "none")], sys.executable, launches=2)
    assert [len(found[name]) for name in ("good", "none")] == [2, 0]
    assert all(one["load_ms"] > 0 for one in found["good"])
    assert [(failure.name, failure.step) for failure in failures] == [("none", "run")]


def test_texts_that_are_read_differently_are_refused(graph: Path) -> None:
    tiny_checkpoint().tokenizing.save(graph.parent)
    load = Workload([CALL], [["w5"]], str(graph.parent / "tokenizer.json"))
    one = model(graph)
    times, failures = timings(
        [one], lambda _: {"texts": load}, sys.executable, threads=1, rounds=1, tell=lambda what: None
    )
    assert (times, [failure.reason for failure in failures]) == ({}, ["its tokenizer reads the texts differently"])


def test_answers_are_the_networks_own(graph: Path) -> None:
    import torch

    outputs, memory = answers(model(graph), sys.executable, [CALL, {"ids": [[7]], "kinds": [[0]]}])
    expected = tiny_checkpoint().network().eval()(torch.tensor([CALL["ids"][0]]), None, None)
    assert np.abs(outputs[0] - expected.detach().numpy()[0]).max() < 1e-4
    assert outputs.shape == (2, 3)
    assert 0 < memory["runtime"] <= memory["loaded"] <= memory["peak"]


def test_an_environment_is_made_once_and_again_for_other_requirements(tmp_path: Path) -> None:
    tool = script(tmp_path, "tool", BROKEN, requirements="# nothing\n")
    python = Path(interpreter(tool, tmp_path / "venvs"))
    assert python.exists()
    mark = python.parent / "mark"
    mark.touch()
    interpreter(tool, tmp_path / "venvs")
    assert mark.exists()
    assert tool.requirements is not None
    tool.requirements.write_text("# something else\n")
    interpreter(tool, tmp_path / "venvs")
    assert not mark.exists()


def test_a_failed_install_is_tried_again(tmp_path: Path) -> None:
    tool = script(tmp_path, "tool", BROKEN, requirements="./nowhere-1.0-py3-none-any.whl\n")
    for _ in range(2):
        with pytest.raises(Failed, match="nowhere") as failed:
            interpreter(tool, tmp_path / "venvs")
        assert failed.value.step == "install"


def test_every_peer_is_pinned() -> None:
    assert [tool.name for tool in TOOLS] == ["plain", "optimum", "olive", "openvino", OWN]
    for tool in TOOLS:
        assert tool.script.is_file()
        lines = [] if tool.requirements is None else tool.requirements.read_text().splitlines()
        wanted = [line for line in lines if not line.startswith("#")]
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in wanted), tool.name
        assert tool.requirements is None or "torch==2.13.0" in wanted


def test_the_paired_difference() -> None:
    targets = np.zeros(10, dtype=np.int64)
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    teacher = np.asarray([right] * 8 + [wrong] * 2)
    found = accuracy(np.asarray([right] * 5 + [wrong] * 3 + [right, wrong]), teacher, targets)
    assert (found["teacher_alone_right"], found["model_alone_right"]) == (3, 1)
    assert found["estimate"] == pytest.approx(0.6)
    assert found["difference"]["estimate"] == pytest.approx(-0.2)
    assert found["difference"]["low"] < -0.2 < found["difference"]["high"]
    assert found["same_top_label"] == pytest.approx(0.6)


def times(ms: float, *, seed: int) -> Times:
    draws = np.random.default_rng(seed).normal(1.0, 0.01, (12, 2, 5))
    return Times([[list(calls * ms) for calls in passes] for passes in draws])


def test_who_is_faster() -> None:
    by_model = {"mine": {"1x16": times(1.0, seed=1), "1x32": times(2.0, seed=2), "1x64": times(3.0, seed=3)}}
    by_model["theirs"] = {"1x16": times(1.2, seed=4), "1x32": times(1.8, seed=5), "1x64": times(3.0, seed=3)}
    models = [Model(name, tool, Path(), Path(), "", "") for name, tool in (("mine", OWN), ("theirs", "peer"))]
    found = findings(models, by_model, threads=2, compared=["mine", "failed"])
    assert [(one.load, one.verdict) for one in found] == [
        ("1x16", "faster"),
        ("1x32", "slower"),
        ("1x64", "undecided"),
    ]
    assert found[0].ratio.estimate == pytest.approx(1.2, rel=0.02)
    said = below(outcome(found))
    assert "mine: faster than the peer in 1 of 3 comparisons." in said
    assert re.search(r"- SLOWER than theirs, 1x32, 2 threads: 0\.9\d \(0\.\d\d-0\.9\d\)", said)
    assert "- not shown to differ from theirs, 1x64, 2 threads: 1.00 (1.00-1.00)" in said


def outcome(found: list[Finding]) -> against_peers.contest.Outcome:
    same = {"estimate": 1.01, "low": 0.9, "high": 1.1}
    return against_peers.contest.Outcome("b", [], found, {1: {"1x16": same}}, [], ["mine"])


def test_a_model_without_models_has_a_head_only() -> None:
    assert len(table([], ["1x16"], "b").splitlines()) == 2


def test_rows_that_are_timed_have_the_lengths_of_all() -> None:
    lengths = [*range(1, 101), *([300] * 100)]
    rows = spread_rows(lengths, 20)
    picked = [lengths[row] for row in rows]
    assert sorted(picked) == [*range(6, 100, 10), *([300] * 10)]
    assert picked != sorted(picked)
    assert sorted(spread_rows([3, 1, 2], 9)) == [0, 1, 2]


@pytest.mark.parametrize("text", ["16", "0x4", "ax4", "1x2x3"])
def test_a_shape_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        Shape.parse(text)
    assert str(Shape.parse("16x64")) == "16x64"


def test_the_last_line_that_says_something() -> None:
    assert last_line("a\n  b \n\n") == "b"
    assert last_line("\n") == "it said nothing"
