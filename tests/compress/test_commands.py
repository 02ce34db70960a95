"""The commands that look at a model, and `init`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from support.bundles import tiny_bundle
from support.examples import tiny_checkpoint, write_data
from support.hugging_face import answer, tokens
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from compress.cli import main
from compress.recipe import load_recipe
from models.checkpoint import Checkpoint
from models.data import read_table
from models.provenance import Provenance
from models.shape import LayerShape


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    (tmp_path / "teacher").mkdir()
    tiny_checkpoint().save(tmp_path / "teacher")
    return tmp_path / "teacher"


@pytest.fixture
def data(tmp_path: Path) -> dict[str, str]:
    return write_data(tmp_path)


def call(words: list[str], code: int = 0) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == code


def told(words: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    call([*words, "--json"])
    return json.loads(capsys.readouterr().out)


def test_init_writes_a_recipe_that_says_what_was_given(
    teacher: Path, data: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "recipe.yaml"
    words = ["init", "--teacher", str(teacher), "--train", data["train"], "--validation", data["validation"]]
    call([*words, "--out", str(out)])
    recipe = load_recipe(str(out))
    assert recipe.teacher == str(teacher)
    assert recipe.data.validation == data["validation"]
    assert recipe.distill is not None
    assert recipe.distill.layers == 1  # half of the teacher's two
    call([*words, "--out", str(out)], code=2)
    assert "there already" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["quantize:", "# warmup: 0.06", "# percentile: 99.99", "# calibration: percentile"])
def test_the_recipe_of_init_shows_the_stages_and_their_defaults(
    line: str, teacher: Path, data: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "recipe.yaml"
    call(
        ["init", "--teacher", str(teacher), "--train", data["train"], "--validation", data["validation"]]
        + ["--out", str(out)]
    )
    assert line in out.read_text(encoding="utf-8")


def test_init_checks_the_labels_against_the_checkpoint(
    teacher: Path, data: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(data["validation"]).write_text('{"text": "w3", "label": "strange"}\n')
    out = tmp_path / "recipe.yaml"
    words = ["init", "--teacher", str(teacher), "--train", data["train"], "--validation", data["validation"]]
    call([*words, "--out", str(out)], code=2)
    assert "strange" in capsys.readouterr().err
    assert not out.exists()


def test_evaluate_counts_the_right_answers(
    teacher: Path, data: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = ["--cache", str(tmp_path / "cache")]
    facts = told(["evaluate", str(teacher), "--data", data["validation"], "--teacher", str(teacher), *cache], capsys)
    checkpoint = Checkpoint.load(teacher)
    texts = read_table(data["validation"]).texts
    answers = [
        int(checkpoint.network()(torch.tensor([encoding.ids])).argmax())
        for encoding in checkpoint.tokenizing.encode(texts, max_length=64)
    ]
    assert facts["examples"] == 60
    assert facts["estimate"] == pytest.approx(np.mean([answer == 0 for answer in answers]))
    assert facts["low"] <= facts["estimate"] <= facts["high"]
    assert facts["teacher"]["difference"]["estimate"] == 0
    beside = facts["besides"]["macro_f1"]
    assert beside["low"] <= beside["estimate"] <= beside["high"]
    assert facts["teacher"]["besides"] == facts["besides"]
    call(["evaluate", str(teacher), "--data", data["validation"], *cache])
    assert re.search(r"besides\n +macro f1\n +estimate", capsys.readouterr().out)
    assert facts["teacher"]["teacher_only_right"] == facts["teacher"]["candidate_only_right"] == 0


def test_bench_of_a_model_beside_itself_is_a_control(
    teacher: Path, data: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", str(teacher), "--data", data["validation"], "--rounds", "8", "--cache", str(tmp_path / "cache")]
    facts = told(words, capsys)
    assert facts["bytes"] == facts["baseline_bytes"]
    assert facts["p50_ms"] > 0
    assert facts["speedup"]["low"] <= facts["speedup"]["estimate"] <= facts["speedup"]["high"]


def test_inspect_tells_what_each_layer_kept(teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = told(["inspect", str(teacher)], capsys)
    shape = Checkpoint.load(teacher).shape
    assert [layer["ffn"] for layer in facts["layers"]] == [layer.ffn for layer in shape.layers]
    assert {layer["attention"] for layer in facts["layers"]} == {"full"}
    assert facts["kind"] == "checkpoint"
    call(["inspect", str(teacher)])
    assert shape.family in capsys.readouterr().out


def test_convert_writes_what_transformers_reads(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "theirs"
    facts = told(["convert", str(teacher), "--out", str(out)], capsys)
    ours, theirs = Checkpoint.load(teacher), AutoModelForSequenceClassification.from_pretrained(out)
    assert facts["class"] == type(theirs).__name__
    batch = tokens(rows=2)
    assert torch.allclose(answer(theirs, batch), ours.network()(**batch), atol=1e-5)
    text = "w3 w5 w2"
    assert AutoTokenizer.from_pretrained(out)(text)["input_ids"] == ours.tokenizing.encode([text], max_length=16)[0].ids
    call(["convert", str(teacher), "--out", str(out)], code=2)
    assert "not empty" in capsys.readouterr().err
    call(["convert", str(out), "--out", str(tmp_path / "again")])  # what others wrote is read, and written again
    assert "parameters" in capsys.readouterr().out


def test_the_licence_goes_along_from_command_to_command(teacher: Path, data: dict[str, str], tmp_path: Path) -> None:
    (teacher / "README.md").write_text("---\nlicense: mit\nlanguage: en\nbase_model: org/first\n---\n")
    stated = {"license": "mit", "language": ["en"], "base_model": "org/first"}
    converted, student, small, bundle = (tmp_path / name for name in ("converted", "student", "small", "bundle"))
    call(["convert", str(teacher), "--out", str(converted)])
    page = ModelCard.load(converted / "README.md", ignore_metadata_errors=False)
    assert page.data.to_dict() == stated | {"library_name": "transformers", "tags": ["compress-transformers"]}
    assert "Made from `org/first` of the Hugging Face hub. Its page states the licence mit" in page.text
    places = ["--train", data["train"], "--cache", str(tmp_path / "cache"), "--out"]
    learn = ["--layers", "1", "--epochs", "1", "--teacher", str(converted)]
    call(["distill", *learn, *places, str(student)])
    call(["quantize", str(student), *places, str(small)])
    call(["export", str(small), "--validation", data["validation"], *places, str(bundle)])
    made = ModelCard.load(bundle / "README.md", ignore_metadata_errors=False).data.to_dict()
    assert {name: made[name] for name in stated} == stated
    assert Checkpoint.load(small).source == Provenance("org/first", "mit", languages=("en",))


def test_convert_refuses_what_it_cannot_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pruned").mkdir()
    tiny_checkpoint((LayerShape(4, 8, 48), LayerShape(2, 8, 16))).save(tmp_path / "pruned")
    tiny_bundle(tmp_path / "bundle")
    for source, reason in (("pruned", "cannot say what this model is"), ("bundle", "a bundle is a graph")):
        call(["convert", str(tmp_path / source), "--out", str(tmp_path / "out")], code=2)
        said = capsys.readouterr().err.replace("\n", " ")
        assert reason in said
        assert source in said
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inspect", "nowhere/at/all"], "no such directory"),
        (["evaluate", "{teacher}"], "--data"),
        (["verify", "{teacher}"], "manifest.json"),
        (["predict", "{teacher}", "w3"], "manifest.json"),
        (["report", "{teacher}"], "run.json"),
        (["bench", "{teacher}", "--data", "{data}", "--rounds", "0"], "round"),
    ],
)
def test_bad_words_are_told(
    words: list[str], message: str, teacher: Path, data: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    call([word.format(teacher=teacher, data=data["validation"]) for word in words], code=2)
    assert message in capsys.readouterr().err.replace("\n", "")
