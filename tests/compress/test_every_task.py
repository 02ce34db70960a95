"""Each task from a teacher's training to a bundle that answers, on tiny models and drawn data."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.examples import TINY_PRUNING, tiny_checkpoint
from support.images import image_checkpoint, write_images
from support.vocabularies import word_piece_checkpoint

from compress.cli.options import Look
from compress.inspecting import bench_model, evaluate_model, inspect_model
from compress.pipeline import execute, require_passed
from compress.recipe import make_recipe
from compress.report.files import write_report
from export.bundle import Bundle
from export.contents import Contents, write_bundle
from export.graph_file import graph_file
from export.manifest import GoldenExample, PackedArray
from export.target import CPU
from export.verify import verify_bundle
from models.errors import BadFile, BadInput, Unsupported
from models.kinds import Reads
from models.shape import HeadShape
from models.tasks import TASKS

# What a row of random words is labelled with: something that can be learnt from the words.
LABELS: dict[str, Any] = {
    "text-classification": lambda words: ["few", "many"][len(words) > 5],
    "multi-label-classification": lambda words: [name for name in ("w2", "w3", "w4") if name in words],
    "text-regression": lambda words: len(words) / 2,
    "sentence-embedding": lambda words: float("w2" in words),
    "question-answering": lambda words: _first_few(words),
    "token-classification": lambda words: ["B-few" if word in ("w2", "w3", "w4") else "O" for word in words],
}


def _first_few(words: list[str]) -> dict[str, Any]:
    place = next((place for place, word in enumerate(words) if word in ("w2", "w3", "w4")), None)
    found = [] if place is None else [place]
    return {
        "text": [words[one] for one in found],
        "answer_start": [sum(len(word) + 1 for word in words[:one]) for one in found],
    }


def write_rows(path: Path, task: str, *, rows: int, seed: int) -> str:
    draw = random.Random(seed)
    with path.open("w", encoding="utf-8") as stream:
        for _ in range(rows):
            words = [f"w{draw.randrange(2, 9)}" for _ in range(draw.randrange(2, 9))]
            text = words if task == "token-classification" else " ".join(words)
            first = {"question": "w9 w9", "context": text} if task == "question-answering" else {"text": text}
            stream.write(json.dumps({**first, "label": LABELS[task](words)}) + "\n")
    return str(path)


def recipe_of(task: str, folder: Path) -> dict[str, Any]:
    (folder / "start").mkdir()
    tiny_checkpoint(head=None).save(folder / "start")
    return {
        "name": "tiny",
        "task": task,
        "teacher": str(folder / "start"),
        "data": {
            "train": write_rows(folder / "train.jsonl", task, rows=400, seed=0),
            "validation": write_rows(folder / "validation.jsonl", task, rows=60, seed=1),
        },
        "train": {"epochs": 10, "batch_size": 16, "learning_rate": 3e-3},
        "distill": {
            "layers": 1,
            "epochs": 4,
            "batch_size": 16,
            "learning_rate": 3e-3,
            "losses": {"kl": 0.5, "mse": 1.0},
        },
        "prune": TINY_PRUNING | {"recovery": {"epochs": 1.0}},
        "quantize": {"calibration_examples": 16},
        "export": {"golden": 2},
        "gates": {"default": {"accuracy": {"max_loss": 95.0}}},
        "measure": {"rounds": 4, "texts": 4},
    }


quickly = pytest.mark.usefixtures("timed_by_size")  # where nothing is said of times
# In files of their own.
OF_THEIR_OWN: tuple[str, ...] = ("sentence-embedding", "image-classification", "object-detection")
OF_THEIR_OWN += ("translation", "summarization", "text-generation")


@quickly
@pytest.mark.parametrize("task", [task for task in TASKS if task.name not in OF_THEIR_OWN], ids=lambda task: task.name)
def test_from_training_to_a_bundle_that_answers(task: Any, tmp_path: Path) -> None:
    result = execute(make_recipe(recipe_of(task.name, tmp_path), where="test"), out=tmp_path, cache=tmp_path / "cache")
    require_passed(result)
    trained, last = result.stages[0].validation, result.stages[-1].validation
    assert trained.metric == task.metric.name
    assert trained.estimate > 0.55  # it learnt: chance is 0.5 at most
    assert last.estimate > 0.3
    assert [stage.stage for stage in result.stages] == ["train", "distill", "prune", "quantize", "export"]
    sensitivity = result.stages[3].artifact.details["sensitivity"]
    assert all(np.isfinite([row["kl"], row["score_change"]]).all() for row in sensitivity)
    directory = tmp_path / "tiny" / "bundle"
    verify_bundle(directory)
    bundle = Bundle.open(directory)
    assert bundle.shape.head is not None
    assert bundle.shape.head.task == task.name
    texts = ["w2 w5", "w5 w6 w4 w5 w6 w7 w8 w3"]
    few, many = bundle.predict(["w9 w9"] * 2, texts) if task.shared else bundle.predict(texts)
    assert few.values != many.values
    assert task.name in (directory / "README.md").read_text()
    write_report(result, tmp_path / "tiny")
    assert task.metric.name in (tmp_path / "tiny" / "report.html").read_text()


@quickly
@pytest.mark.parametrize("dimensions", [None, 12])
def test_an_encoder_of_sentences_keeps_what_is_near(dimensions: int | None, tmp_path: Path) -> None:
    head = HeadShape((), task="sentence-embedding", reads=Reads.MEAN, width=32, normalized=True)
    plain = recipe_of("text-regression", tmp_path) | {"teacher": str(tmp_path / "teacher")}
    del plain["task"], plain["train"]
    losses = {"mse": 0.0, "kl": 1.0, "hidden": 0.1}
    plain["distill"] |= {"epochs": 8, "losses": losses, "dimensions": dimensions}
    plain["prune"] |= {"recovery": {"epochs": 1.0, "losses": losses}}
    (tmp_path / "teacher").mkdir()
    tiny_checkpoint(head=head).save_hugging_face(tmp_path / "teacher")
    texts = [json.loads(line)["text"] for line in (tmp_path / "validation.jsonl").read_text().splitlines()]
    rows = []
    for first, second in pairwise(texts):
        one, two = (set(text.split()) for text in (first, second))
        rows.append({"sentence1": first, "sentence2": second, "score": len(one & two) / len(one | two)})
    (tmp_path / "validation.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    result = execute(make_recipe(plain, where="test"), out=tmp_path, cache=tmp_path / "cache")
    require_passed(result)
    ours = [stage.validation for stage in result.stages]
    assert {(one.metric, len(one.scores)) for one in ours} == {("spearman", len(rows))}
    assert ours[0].estimate > 0.3  # words that are shared make texts alike, whatever the weights
    assert ours[-1].estimate > 0.7 * ours[0].estimate
    directory = tmp_path / "tiny" / "bundle"
    verify_bundle(directory)
    (answer,) = Bundle.open(directory).predict(["w2 w5"])
    assert np.linalg.norm(answer.values["embedding"]) == pytest.approx(1)
    assert len(answer.values["embedding"]) == (dimensions or 32)
    kinds = [one["type"].rpartition(".")[2] for one in json.loads((directory / "modules.json").read_text())]
    assert kinds == ["Transformer", "Pooling", *(["Dense"] if dimensions else []), "Normalize"]
    assert "id2label" not in (directory / "README.md").read_text()
    write_report(result, tmp_path / "tiny")
    assert "spearman" in (tmp_path / "tiny" / "report.html").read_text()


IMAGE_ARCHITECTURE = {
    "family": "vit",
    "layers": 2,
    "hidden_size": 16,
    "heads": 2,
    "ffn": 32,
    "image_size": 8,
    "patch_size": 4,
    "channels": 1,
}


def image_recipe(folder: Path) -> dict[str, Any]:
    plain = recipe_of("text-classification", folder)
    del plain["teacher"]
    return plain | {
        "task": "image-classification",
        "data": {
            "train": write_images(folder / "train", rows=200, seed=0),
            "validation": write_images(folder / "validation", rows=100, seed=1),
        },
        "train": plain["train"] | {"epochs": 4, "architecture": IMAGE_ARCHITECTURE},
        "distill": plain["distill"] | {"losses": {"kl": 0.5, "mse": 1.0, "hidden": 1.0}},
    }


def test_images_from_training_to_a_bundle_that_answers(tmp_path: Path) -> None:
    plain = image_recipe(tmp_path)
    result = execute(make_recipe(plain, where="test"), out=tmp_path, cache=tmp_path / "cache")
    require_passed(result)
    assert [stage.stage for stage in result.stages] == ["train", "distill", "prune", "quantize", "export"]
    assert [stage.validation.metric for stage in result.stages] == ["accuracy"] * 5
    assert result.stages[0].validation.estimate > 0.95
    assert result.stages[-1].validation.estimate > 0.9
    assert set(result.stages[-1].validation.latency.lengths) == {5}  # four patches and the class token
    assert "embeddings.projection" in result.stages[3].artifact.details["forms"]
    directory = tmp_path / "tiny" / "bundle"
    verify_bundle(directory)
    bundle = Bundle.open(directory)
    assert bundle.shape.labels == ("bottom", "top")
    paths = [str(tmp_path / "validation" / kind / name) for kind, name in (("top", "0.png"), ("bottom", "1.png"))]
    assert [answer.values["label"] for answer in bundle.predict(paths)] == ["top", "bottom"]
    code = (directory / "README.md").read_text().split("```python\n")[1].split("```")[0]
    code = code.replace("image.png", paths[1])
    done = subprocess.run([sys.executable, "-c", code], cwd=directory, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("bottom", 0), done.stderr
    write_report(result, tmp_path / "tiny")
    assert "image-classification" in (tmp_path / "tiny" / "report.json").read_text()
    again = execute(make_recipe(plain, where="test"), out=tmp_path, cache=tmp_path / "cache")
    assert again.computed == []
    look = Look(data=plain["data"]["validation"], teacher=str(tmp_path / "tiny" / "0-train"), rounds=4, cache=tmp_path)
    assert evaluate_model(str(directory), look)["estimate"] == result.stages[-1].validation.estimate
    assert bench_model(str(directory), look)["tokens_median"] == 5
    facts = inspect_model(str(directory))
    assert (facts["family"], facts["image"]["patch"], facts["vocabulary"]) == ("vit", 4, 0)
    with pytest.raises(BadInput, match="nowhere.png: there is no such file"):
        bundle.predict(["nowhere.png"])
    with pytest.raises(BadInput, match="no vocabulary"):
        _ = bundle.tokenizing


def test_a_golden_image_that_was_changed_is_found(tmp_path: Path) -> None:
    checkpoint = image_checkpoint()
    (tmp_path / "bundle").mkdir()
    pixels = np.random.default_rng(0).normal(size=(1, 1, 8, 8)).astype(np.float32)
    contents = Contents(
        checkpoint.shape, checkpoint.reader, graph_file(checkpoint.network(), CPU), [{"pixel_values": pixels}], 1
    )
    write_bundle(tmp_path / "bundle", contents)
    assert verify_bundle(tmp_path / "bundle").examples == 1
    golden = json.loads((tmp_path / "bundle" / "golden.json").read_text())
    (example,) = golden["examples"]
    np.testing.assert_array_equal(GoldenExample.model_validate(example).arrays()["pixel_values"], pixels)
    packed = example["pixel_values"]
    broken = [
        packed | {"data": "no base64!"},
        packed | {"data": packed["data"][:40]},
        packed | {"shape": [1, 8, 9]},
        packed | {"shape": [1, -8, -8]},
        packed | {"shape": [1 << 20, 1 << 20]},
        packed | {"data": PackedArray.of(np.zeros(1 << 16, dtype=np.float32)).data},
    ]
    for one in broken:
        with pytest.raises(BadFile, match="an example's array"):
            GoldenExample.model_validate(example | {"pixel_values": one}).arrays()
    for both in ({"input_ids": [1]}, {"pixel_values": None}):
        with pytest.raises(ValueError, match="a text or an image"):
            GoldenExample.model_validate(example | both)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"trim": {}}, "trim: images have no words"),
        ({"distill": {"copies": 1}}, r"distill\.copies: images have no words"),
        (
            {"prune": TINY_PRUNING | {"recovery": {"embeddings": "int4"}}},
            r"prune\.recovery\.embeddings: images have no",
        ),
        ({"foreign": "texts.csv"}, r"data\.foreign: images have no words"),
        ({"max_length": 9}, r"data\.max_length: images have no words"),
        ({"family": "bert"}, r"train\.architecture\.family: a bert reads texts, and the rows are images"),
        ({"patch_size": 16}, "holds no patch of 16"),
        ({"task": "text-classification"}, "this is a folder, not a file"),
    ],
)
def test_what_images_have_not_is_refused_before_anything_is_computed(
    change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    plain = image_recipe(tmp_path)
    for key, value in change.items():
        if key in plain["data"] or key in ("foreign", "max_length"):
            plain["data"][key] = value
        elif key in IMAGE_ARCHITECTURE:
            plain["train"]["architecture"] = IMAGE_ARCHITECTURE | {key: value}
        else:
            plain[key] = value
    with pytest.raises(BadInput, match=says):
        execute(make_recipe(plain, where="test"), out=tmp_path, cache=tmp_path / "cache")
    assert not (tmp_path / "tiny" / "0-train").exists()


@quickly
def test_a_teacher_knows_its_task(tmp_path: Path) -> None:
    plain = recipe_of("text-regression", tmp_path)
    stages = {key: plain.pop(key) | {"epochs": 0.5} for key in ("train", "distill")}
    plain = {key: plain[key] for key in ("name", "task", "teacher", "data", "measure")} | {"train": stages["train"]}
    execute(make_recipe(plain, where="test"), out=tmp_path, cache=tmp_path / "cache")
    del plain["task"], plain["train"]
    plain |= {"teacher": str(tmp_path / "tiny" / "0-train"), "name": "again", "distill": stages["distill"]}
    result = execute(make_recipe(plain, where="test"), out=tmp_path, cache=tmp_path / "cache")
    assert result.stages[-1].validation.metric == "spearman"
    with pytest.raises(BadInput, match=r"needs two labels, and this head has 1.*Its own task is text-regression"):
        execute(
            make_recipe(plain | {"task": "text-classification"}, where="test"), out=tmp_path, cache=tmp_path / "cache"
        )


@quickly
def test_what_a_checkpoint_does_not_say_is_said_by_the_recipe(tmp_path: Path) -> None:
    plain = recipe_of("multi-label-classification", tmp_path)
    del plain["train"]
    names = HeadShape(("w2", "w3", "w4"))  # as a config without problem_type is read
    tiny_checkpoint(head=names).save(tmp_path / "start")
    brief = {"epochs": 0.1}
    plain |= {"distill": plain["distill"] | brief, "prune": plain["prune"] | {"recovery": brief}}
    plain["data"] |= {"extra": plain["data"]["train"]}
    result = execute(make_recipe(plain, where="test"), out=tmp_path, cache=tmp_path / "cache")
    assert result.stages[-1].validation.metric == "macro_f1"
    (answer,) = Bundle.open(tmp_path / "tiny" / "bundle").predict(["w2 w5"])
    assert set(answer.values) == {"labels", "probabilities"}


@quickly
def test_words_are_compared_where_tokens_differ(tmp_path: Path) -> None:
    """A tagger recovers after its vocabulary was trimmed: the teacher's answers to words, not to tokens."""
    (tmp_path / "start").mkdir()
    word_piece_checkpoint(head=None).save(tmp_path / "start")
    rows = [{"text": ["w2", "w3", "w4", "w5"], "label": ["O", "B-x", "I-x", "O"]}] * 20
    rows += [{"text": ["w6", "w3", "w30", "w7"], "label": ["O", "B-x", "O", "O"]}]  # a rare word, to be cut anew
    for role in ("train", "validation"):
        (tmp_path / f"{role}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    plain: dict[str, Any] = {
        "name": "tiny",
        "task": "token-classification",
        "teacher": str(tmp_path / "start"),
        "data": {role: str(tmp_path / f"{role}.jsonl") for role in ("train", "validation")},
        "train": {"epochs": 5, "batch_size": 8, "learning_rate": 5e-3},
        "trim": {"min_count": 5, "recovery": {"epochs": 4, "batch_size": 8, "learning_rate": 2e-3}},
        "gates": {"default": {"accuracy": {"max_loss": 90.0}}},
        "measure": {"rounds": 4, "texts": 4},
    }
    result = execute(make_recipe(plain, where="test"), out=tmp_path, cache=tmp_path / "cache")
    teacher, trimmed = result.stages
    assert trimmed.validation.parameters < teacher.validation.parameters
    losses = [point["losses"]["mse"] for point in trimmed.artifact.details["training"]["points"]]
    assert losses[-1] < losses[0]
    short = plain | {"name": "short", "data": plain["data"] | {"max_length": 6}}  # too short for the word's pieces
    with pytest.raises(BadInput, match=r"of 1 texts teacher and student read other words.*Lower data.max_length"):
        execute(make_recipe(short, where="test"), out=tmp_path, cache=tmp_path / "cache")


def test_an_unknown_task_is_named(tmp_path: Path) -> None:
    plain = recipe_of("text-regression", tmp_path) | {"task": "text-regresion"}
    with pytest.raises(Unsupported, match="'text-regresion' is not known.*Did you mean 'text-regression'"):
        execute(make_recipe(plain, where="test"), out=tmp_path, cache=tmp_path / "cache")
