"""A whole run on tiny models: what is made, what is reused, what a gate stops, and what a kill leaves."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.examples import TINY_PRUNING, tiny_checkpoint, tiny_recipe
from support.runs import Finished
from support.vocabularies import word_piece_checkpoint

import compress
from compress.cli import main
from compress.inspecting import inspect_model
from compress.pipeline import execute, require_passed
from compress.recipe import Recipe, make_recipe
from compress.record import RunResult
from compress.sources import load_inputs
from export.bundle import Bundle
from export.verify import verify_bundle
from models.checkpoint import Checkpoint
from models.errors import BadFile, BadInput, GateFailed
from models.shape import HeadShape

ROOT = Path(__file__).parents[2]
quickly = pytest.mark.usefixtures("timed_by_size")  # where nothing is said of times


def recipe_in(folder: Path) -> dict[str, Any]:
    """Return the recipe of a short run on a random teacher, with gates that nothing fails."""
    return tiny_recipe(folder) | {
        "distill": {"layers": 1, "epochs": 1.0, "batch_size": 16},
        "prune": TINY_PRUNING | {"recovery": {"epochs": 0.5}},
        "quantize": {"calibration_examples": 16},
        "gates": {"default": {"accuracy": {"max_loss": 99.0}, "size": {"min_ratio": 0.01}}},
    }


def carry_out(plain: dict[str, Any], folder: Path) -> RunResult:
    recipe: Recipe = make_recipe(plain, where="test")
    return execute(recipe, out=folder / "runs", cache=folder / "cache")


@pytest.fixture
def plain(tmp_path: Path) -> dict[str, Any]:
    return recipe_in(tmp_path)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("run")
    plain = recipe_in(folder)
    return Finished(plain, folder, carry_out(plain, folder))


@pytest.fixture
def finished(ran: Finished, tmp_path: Path) -> Finished:
    """Return a copy of the run, which goes on from there."""
    for name in ("runs", "cache"):
        shutil.copytree(ran.folder / name, tmp_path / name)
    return Finished(copy.deepcopy(ran.plain), tmp_path, ran.result)


def test_a_run_makes_every_stage_and_a_bundle_that_verifies(finished: Finished) -> None:
    result = finished.result
    require_passed(result)
    assert [stage.stage for stage in result.stages] == ["teacher", "distill", "prune", "quantize", "export"]
    assert result.computed == ["teacher", "distill", "prune", "quantize", "export"]
    bundle = finished.folder / "runs" / "tiny" / "bundle"
    assert verify_bundle(bundle).examples == 2
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert [step["stage"] for step in manifest["lineage"]] == ["teacher", "distill", "prune", "quantize", "export"]
    assert manifest["measurements"]["bundle"]["estimate"] == result.stages[-1].validation.estimate
    page = (bundle / "README.md").read_text()
    assert "How it was compressed" in page
    assert "model-index" in page
    # Whoever gets it learns nothing of the folders that it was made in.
    folders = {str(Path(finished.plain["teacher"]).parent), str(finished.folder), tempfile.gettempdir()}
    assert not [name for name in folders if name in page or name in (bundle / "manifest.json").read_text()]
    # The bundle answers as the quantized model that was judged before it.
    assert result.stages[-1].validation.predictions == result.stages[-2].validation.predictions


@quickly
@pytest.mark.parametrize("asked", [{"attention": "window", "window": 2}, {"attention": "linear", "positions": 80}])
def test_a_student_that_reads_otherwise_goes_all_the_way(
    asked: dict[str, Any], plain: dict[str, Any], tmp_path: Path
) -> None:
    result = carry_out(plain | {"distill": plain["distill"] | asked}, tmp_path)
    require_passed(result)
    bundle = tmp_path / "runs" / "tiny" / "bundle"
    assert verify_bundle(bundle).examples == 2
    said = inspect_model(str(bundle))
    assert said["layers"][0]["attention"] == {"window": "window 2, global tokens 1"}.get(asked["attention"], "linear")
    assert said["positions"] == asked.get("positions", 40)
    assert result.stages[-1].validation.predictions == result.stages[-2].validation.predictions


@quickly
def test_a_second_run_redoes_nothing_and_a_changed_setting_only_what_follows_it(finished: Finished) -> None:
    plain, folder, first = finished
    again = carry_out(plain, folder)
    assert again.computed == []
    assert again.stages == first.stages
    changed = carry_out(plain | {"quantize": {"calibration_examples": 8}}, folder)
    assert changed.computed == ["quantize"]  # the same weights come out, so the export stands
    wider = carry_out(plain | {"quantize": {"calibration_examples": 8, "embeddings": "float"}}, folder)
    assert wider.computed == ["quantize", "export"]


def test_the_bundle_of_an_earlier_run_does_not_outlive_a_failed_one(finished: Finished) -> None:
    plain, folder, _ = finished
    bundle = folder / "runs" / "tiny" / "bundle"
    assert bundle.exists()
    plain["gates"] = {"default": {}, "export": {"size": {"min_ratio": 1000.0}}}
    assert not carry_out(plain, folder).passed
    assert not bundle.exists()
    assert (folder / "runs" / "tiny" / "5-export" / "manifest.json").exists()


@quickly
def test_training_uses_the_threads_of_the_recipe(plain: dict[str, Any], tmp_path: Path) -> None:
    before, seen = torch.get_num_threads(), set()
    del plain["quantize"], plain["export"]

    def progress(label: str) -> Callable[[int, int], None]:
        seen.add(torch.get_num_threads())
        return lambda done, total: None

    recipe = make_recipe(plain | {"threads": before + 1}, where="test")
    execute(recipe, out=tmp_path / "runs", cache=tmp_path / "cache", progress=progress)
    assert seen == {before + 1}
    assert torch.get_num_threads() == before


@quickly
def test_a_failed_gate_stops_the_run_and_says_so(plain: dict[str, Any], tmp_path: Path) -> None:
    plain["gates"] = {"default": {"size": {"min_ratio": 1000.0}}}
    result = carry_out(plain, tmp_path)
    assert [stage.stage for stage in result.stages] == ["teacher", "distill"]
    assert not result.passed
    assert not (tmp_path / "runs" / "tiny" / "bundle").exists()
    with pytest.raises(GateFailed, match="size gate"):
        require_passed(result)
    plain["gates"] = {"default": {"size": {"min_ratio": 0.01}}}
    assert "distill" not in carry_out(plain, tmp_path).computed


def label_as_the_teacher(plain: dict[str, Any]) -> None:
    """Give every validation text the label that the teacher gives it: any other model is then worse."""
    teacher = Checkpoint.load(plain["teacher"])
    path = Path(plain["data"]["validation"])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    network = teacher.network()
    for row, encoding in zip(
        rows, teacher.tokenizing.encode([row["text"] for row in rows], max_length=64), strict=True
    ):
        row["label"] = int(network(torch.tensor([encoding.ids])).argmax())
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")


@quickly
def test_backtracking_tries_milder_settings(plain: dict[str, Any], tmp_path: Path) -> None:
    plain |= {"on_failure": "backtrack", "gates": {"default": {}, "prune": {"accuracy": {"max_loss": 0.0001}}}}
    del plain["quantize"], plain["export"]
    label_as_the_teacher(plain)
    result = carry_out(plain, tmp_path)
    last = result.stages[-1]
    assert last.stage == "prune"
    assert last.attempt >= 1
    assert last.artifact.settings["sparsity"] < 0.3


def test_a_changed_artifact_is_refused(finished: Finished) -> None:
    weights = finished.folder / "runs" / "tiny" / "1-distill" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    with pytest.raises(BadFile, match=r"model\.safetensors"):
        carry_out(finished.plain, finished.folder)


def test_a_directory_that_holds_something_else_is_left_alone(plain: dict[str, Any], tmp_path: Path) -> None:
    mine = tmp_path / "runs" / "tiny"
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("mine")
    with pytest.raises(BadInput, match="something else"):
        carry_out(plain, tmp_path)
    assert [entry.name for entry in mine.iterdir()] == ["thesis.txt"]


def write_recipe(plain: dict[str, Any], folder: Path) -> list[str]:
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(plain), encoding="utf-8")  # JSON is YAML
    return ["run", str(path), "--out", str(folder / "runs"), "--cache", str(folder / "cache")]


def exit_code(words: list[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        main(words)
    return int(stop.value.code or 0)


def test_the_command_prints_one_json_object_and_writes_the_report(
    plain: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del plain["prune"]
    assert exit_code([*write_recipe(plain, tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    run = tmp_path / "runs" / "tiny"
    assert told == json.loads((run / "report.json").read_text())
    assert (run / "report.html").read_text().startswith("<!")
    assert exit_code(["verify", str(run / "bundle"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verified"] is True
    assert exit_code(["inspect", str(run / "4-quantize"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["artifact"]["stage"] == "quantize"
    assert exit_code(["predict", str(run / "bundle"), "w3 w4"]) == 0
    assert capsys.readouterr().out.strip()


@quickly
def test_a_failed_gate_exits_with_3_and_bad_input_with_2(
    plain: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain["gates"] = {"default": {"size": {"min_ratio": 1000.0}}}
    assert exit_code(write_recipe(plain, tmp_path)) == 3
    assert "size gate" in capsys.readouterr().err
    assert exit_code([*write_recipe(plain, tmp_path), "--json"]) == 3
    printed = capsys.readouterr()
    assert json.loads(printed.out)["passed"] is False
    assert json.loads(printed.err)["error"]["kind"] == "GateFailed"
    assert exit_code(write_recipe(plain | {"distil": {}}, tmp_path)) == 2
    assert "Did you mean 'distill'?" in capsys.readouterr().err.replace("\n", "")
    assert exit_code(["run", "--no-such-option"]) == 2
    assert exit_code(["--version"]) == 0
    assert compress.__version__ in capsys.readouterr().out


def test_a_stage_alone_writes_an_artifact_where_it_was_told(
    plain: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = plain["data"]
    cache = ["--cache", str(tmp_path / "cache")]
    out = tmp_path / "student"
    words = ["distill", "--teacher", plain["teacher"], "--train", data["train"], "--layers", "1", "--epochs", "1"]
    assert exit_code([*words, "--out", str(out), *cache]) == 0
    assert (out / "artifact.json").exists()
    words = ["quantize", str(out), "--train", data["train"], "--out", str(tmp_path / "int8"), "--json"]
    capsys.readouterr()
    assert exit_code([*words, *cache]) == 0
    assert json.loads(capsys.readouterr().out)["stage"] == "quantize"
    assert not list((tmp_path / "cache" / "single").iterdir())


@pytest.mark.slow
def test_ten_kills_change_nothing(plain: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(plain), encoding="utf-8")
    words = [sys.executable, str(ROOT / "benchmarks" / "kills.py"), str(path), "--out", str(tmp_path / "runs")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kill 10: " in done.stdout


@pytest.fixture
def trimming(plain: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Return a recipe that trims: a teacher that falls back to characters, and texts of words it was not shown."""
    word_piece_checkpoint(seed=1).save(Path(plain["teacher"]))
    train, validation = (Path(plain["data"][role]) for role in ("train", "validation"))
    for path, words in ((train, 30), (validation, 40)):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row["text"] = " ".join(word for word in row["text"].split() if int(word[1:]) < words) or "w3"
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    elsewhere = tmp_path / "elsewhere.jsonl"
    elsewhere.write_text("\n".join(json.dumps({"text": f"w{n % 48 + 2} w{n % 7 + 3}"}) for n in range(120)) + "\n")
    kept = {key: plain[key] for key in ("name", "teacher", "data", "quantize", "export", "gates", "measure")}
    return kept | {"trim": {}, "data": plain["data"] | {"foreign": str(elsewhere)}}


def test_a_trimmed_model_reads_everything_with_its_own_tokenizer(trimming: dict[str, Any], tmp_path: Path) -> None:
    trimming["gates"] = {"default": {"accuracy": {"max_loss": 99.0}}, "trim": {"agreement": {"min_share": 0.1}}}
    result = carry_out(trimming, tmp_path)
    require_passed(result)
    assert [stage.directory for stage in result.stages] == ["0-teacher", "3-trim", "4-quantize", "5-export"]
    teacher, trimmed, quantized, exported = result.stages
    assert {stage.validation.data for stage in result.stages} == {teacher.validation.data}
    # Its words are cut into characters where the teacher had a piece, so the same texts are longer.
    assert trimmed.validation.latency is not None
    assert trimmed.validation.baseline_latency is not None
    theirs, own = trimmed.validation.baseline_latency.lengths, trimmed.validation.latency.lengths
    assert len(theirs) == len(own)
    assert sum(own) > sum(theirs)
    assert all(long >= short for long, short in zip(own, theirs, strict=True))
    # The bundle answers texts as the checkpoint that was judged before it, by the tokenizer it carries.
    bundle = Bundle.open(tmp_path / "runs" / "tiny" / "bundle")
    assert bundle.tokenizing.json == Checkpoint.load(tmp_path / "runs" / "tiny" / "3-trim").tokenizing.json
    rows = [json.loads(line)["text"] for line in Path(trimming["data"]["validation"]).read_text().splitlines()]
    answers = [bundle.shape.labels.index(one.values["label"]) for one in bundle.predict(rows)]
    assert answers == exported.validation.predictions == quantized.validation.predictions
    assert trimmed.foreign is not None
    assert len(trimmed.foreign.scores) == 120
    assert [verdict.gate for verdict in trimmed.verdicts] == ["accuracy", "agreement"]
    assert quantized.foreign is None
    assert carry_out(trimming, tmp_path).computed == []


@quickly
def test_the_agreement_gate_is_asked_where_there_are_texts_from_elsewhere(
    trimming: dict[str, Any], tmp_path: Path
) -> None:
    trimming["gates"] = {"default": {}}
    failed = carry_out(trimming, tmp_path)
    with pytest.raises(GateFailed, match="agreement gate"):
        require_passed(failed)
    trimming["data"].pop("foreign")
    require_passed(carry_out(trimming, tmp_path))


@quickly
def test_a_failed_agreement_lets_trim_keep_more(trimming: dict[str, Any], tmp_path: Path) -> None:
    trimming |= {"trim": {"min_count": 4, "max_pieces": 3}, "on_failure": "backtrack", "gates": {"default": {}}}
    result = carry_out(trimming, tmp_path)
    require_passed(result)
    trimmed = result.stages[1]
    assert trimmed.attempt >= 3
    assert (trimmed.artifact.settings["min_count"], trimmed.artifact.settings["max_pieces"]) == (1, None)
    assert trimmed.artifact.settings["first"] > 0


@quickly
def test_a_trimmed_model_can_be_pruned_and_recover_from_the_teacher(
    trimming: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--train", trimming["data"]["train"], "--validation", trimming["data"]["validation"], "--json"]
    places = ["--teacher", trimming["teacher"], "--cache", str(tmp_path / "cache"), "--threads", "1"]
    out = {name: str(tmp_path / name) for name in ("trimmed", "pruned")}
    trim = ["trim", trimming["teacher"], *data, *places, "--min-count", "100", "--out", out["trimmed"]]
    assert exit_code(trim) == 0
    small = ["--sparsity", "0.3", "--rounds", "1", "--examples", "16", "--ffn-multiple", "4"]
    prune = ["prune", out["trimmed"], *data, *places, *small, "--recovery-epochs", "0.5", "--out", out["pruned"]]
    assert exit_code(prune) == 0
    assert Checkpoint.load(out["pruned"]).tokenizing == Checkpoint.load(out["trimmed"]).tokenizing
    capsys.readouterr()
    assert exit_code([*prune, "--recovery-losses-hidden", "1"]) == 2
    assert "tokenizer of its own" in capsys.readouterr().err


@quickly
def test_a_student_learns_from_extra_texts_and_changed_copies(plain: dict[str, Any], tmp_path: Path) -> None:
    extra = tmp_path / "extra.jsonl"
    rows = [
        json.dumps({"text": f"w{number % 40 + 2} w{number % 9 + 3}", "label": "unheard of"}) for number in range(20)
    ]
    extra.write_text("\n".join(rows) + "\n")
    plain["data"] |= {"extra": str(extra)}
    plain["distill"] |= {"copies": 2}
    result = carry_out(plain, tmp_path)
    require_passed(result)
    distilled = result.stages[1].artifact.details["training"]
    pruned = result.stages[2].artifact.details["training"]
    assert distilled["examples"] == 3 * (96 + 20)  # one epoch
    assert pruned["examples"] == 64  # half of the four steps that 96 + 20 texts take without copies
    assert [(data.role, data.examples) for data in result.data][-1] == ("extra", 20)
    assert carry_out(plain, tmp_path).computed == []
    # Another input is taught on other copies, the same one always on the same.
    inputs = load_inputs(make_recipe(plain, where="test"), cache=tmp_path / "cache")
    first, again, other = (inputs.lessons(2, inputs.base, draw=draw) for draw in ("a", "a", "b"))
    assert np.array_equal(first.tokens.ids, again.tokens.ids)
    assert first.digest == again.digest != other.digest
    assert first.tokens.ids.tolist() != other.tokens.ids.tolist()
    assert first.targets.tolist() == [0] * 96 + [-1] * (3 * 116 - 96)
    extra.write_text("\n".join(rows[:-1]) + "\n")
    assert carry_out(plain, tmp_path).computed[:2] == ["distill", "prune"]


def test_extra_texts_are_like_the_training_texts(plain: dict[str, Any], tmp_path: Path) -> None:
    extra = tmp_path / "extra.jsonl"
    extra.write_text(json.dumps({"text": "w3", "text2": "w4"}) + "\n")
    plain["data"] |= {"extra": str(extra), "text": "text", "text_pair": "text2"}
    train = Path(plain["data"]["train"])
    with pytest.raises(BadInput, match="text2"):
        carry_out(plain, tmp_path)
    plain["data"] = {key: value for key, value in plain["data"].items() if key not in ("train", "text_pair")}
    with pytest.raises(BadInput, match="data.extra"):
        carry_out(plain, tmp_path)
    assert train.exists()


@quickly
def test_several_teachers_may_teach(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    plain, folder, alone = finished
    other = tiny_checkpoint(seed=3)
    (folder / "other").mkdir()
    other.save(folder / "other")
    plain["ensemble"] = [str(folder / "other")]
    together = carry_out(plain, folder)
    assert together.computed == ["distill", "prune", "quantize", "export"]
    assert together.stages[0] == alone.stages[0]  # the first is what everything is compared with
    assert carry_out(plain, folder).computed == []
    (folder / "recipe.yaml").write_text(
        json.dumps({key: plain[key] for key in plain if key not in ("teacher", "ensemble")})
    )
    both = ["--teacher", plain["teacher"], "--teacher", str(folder / "other"), "--threads", "1"]
    places = ["--out", str(folder / "runs"), "--cache", str(folder / "cache"), "--json"]
    assert exit_code(["run", str(folder / "recipe.yaml"), *both, *places]) == 0
    assert json.loads(capsys.readouterr().out)["computed"] == []


def test_teachers_must_agree_on_their_labels(plain: dict[str, Any], tmp_path: Path) -> None:
    head = HeadShape(("yes", "no", "perhaps"))
    (tmp_path / "other").mkdir()
    tiny_checkpoint(head=head).save(tmp_path / "other")
    with pytest.raises(BadInput, match="perhaps.*are not the first teacher's"):
        carry_out(plain | {"ensemble": [str(tmp_path / "other")]}, tmp_path)
