"""A search whose teacher reads images: a shipped recipe does without what only words have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.images import image_checkpoint, write_images

from compress.cli import main
from compress.recipe import WORDS_ALONE, load_recipe, merged, of_words_alone, without_words
from compress.sources import reads_images
from export.bundle import Bundle
from models.shape import HeadShape

pytestmark = pytest.mark.usefixtures("timed_by_size")
SMALL = [
    *("prune.speedup=null", "prune.sparsity=0.2", "search.first_speedup=null"),
    *("prune.rounds=1", "prune.ffn_multiple=4", "prune.examples=32"),
]


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Return a small search with the shipped recipe, of a random teacher of images."""
    torch.set_num_threads(1)
    head = HeadShape(("bottom", "top"), dropout=0.0, task="image-classification", dense=False)
    (tmp_path / "teacher").mkdir()
    image_checkpoint(head=head).save(tmp_path / "teacher")
    data = {
        "--teacher": str(tmp_path / "teacher"),
        "--train": write_images(tmp_path / "train", rows=48, seed=0),
        "--validation": write_images(tmp_path / "validation", rows=40, seed=1),
        "--out": str(tmp_path / "runs"),
        "--cache": str(tmp_path / "cache"),
    }
    flags = [word for pair in data.items() for word in pair]
    return ["search", *flags, *(word for one in SMALL for word in ("--set", one)), "--levels", "1", "--max-drop", "99"]


def call(words: list[str], code: int) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == code


@pytest.mark.parametrize("more", [["--no-fit"], ["--no-retraining"]])
def test_a_shipped_search_works_on_images(
    more: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call([*words, *more, "--json"], 0)
    told = capsys.readouterr()
    assert "Images have no words: trim" in told.err
    assert ("prune.recovery.copies" in told.err) == (more == ["--no-fit"])
    report = json.loads(told.out)
    assert report["chosen"] == ("level-1" if more == ["--no-fit"] else "level-0")
    recipe = report["recipe"]
    assert (recipe["trim"], recipe["prune"]["recovery"]["embeddings"]) == (None, "float")
    assert not recipe["quantize"]["compensate"]
    if more == ["--no-fit"]:
        recovery = recipe["prune"]["recovery"]
        assert (recovery["copies"], recovery["epochs"]) == (0, 8.0)  # 4 over the texts and a copy
    bundle = Bundle.open(tmp_path / "runs" / "search" / "bundle")
    (answer,) = bundle.predict([str(tmp_path / "validation" / "top" / "0.png")])
    assert answer.values["label"] in ("bottom", "top")


def test_what_the_user_asks_for_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for asked, says in (("trim.first=9", "trim: images have no words"), ("distill.copies=1", "distill.copies: images")):
        call([*words, "--set", asked], 2)
        told = " ".join(capsys.readouterr().err.split())
        where, what = says.split(": ")
        assert what in told and where in told.partition("where:")[2]


def test_a_recipe_file_is_taken_at_its_word(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe("search").model_dump(mode="json")
    (tmp_path / "own.yaml").write_text(json.dumps(recipe))
    call(["search", str(tmp_path / "own.yaml"), *words[1:]], 2)
    assert "no words" in capsys.readouterr().err


def test_every_key_of_words_alone_is_found_and_left_out() -> None:
    asked: dict[str, Any] = {
        "data.foreign": "a.txt",
        "data.max_length": 9,
        "trim": {},
        "distill.copies": 2,
        "distill.embeddings": "int4",
        "prune.recovery.copies": 1,
        "prune.recovery.embeddings": "int2",
        "quantize.compensate": True,
    }
    assert set(asked) == set(WORDS_ALONE)
    plain = merged({"prune": {"sparsity": 0.5, "round_epochs": 0.2}, "distill": {"epochs": 1}}, asked)
    recipe = load_recipe("search", plain)
    assert set(of_words_alone(recipe)) == set(asked)
    left = without_words(recipe, {})
    assert left == WORDS_ALONE | {
        "distill.epochs": 3.0,
        "prune.recovery.epochs": 2.0,
        "prune.round_epochs": 0.4,
    }
    assert of_words_alone(load_recipe("search", {**plain, **left})) == []
    kept = without_words(recipe, {"trim.first": 3, "prune.round_epochs": 0.1, "distill.embeddings": "int4"})
    assert not {"trim", "prune.round_epochs", "distill.embeddings"} & set(kept)


def test_who_reads_images(tmp_path: Path) -> None:
    (tmp_path / "teacher").mkdir()
    image_checkpoint().save(tmp_path / "teacher")
    assert reads_images(load_recipe("search", {"teacher": str(tmp_path / "teacher")}))
    assert not reads_images(load_recipe("search", {"teacher": "standard-library"}))
    assert not reads_images(load_recipe("search"))
    assert reads_images(load_recipe("cifar10"))
