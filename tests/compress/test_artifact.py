"""Sealed directories: whole, checked byte by byte, and named by their inputs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compress.artifact import RECORD_FILE, Origin, open_artifact, read_record, seal
from compress.record import ArtifactRecord
from models.errors import BadFile, BadInput

ORIGIN = Origin(
    stage="prune",
    settings={"speedup": 2.0, "rounds": 4},
    parent="p" * 64,
    inputs={"data": "d", "teacher": "t"},
    seed=0,
    code="0.1.0",
    lineage=("a" * 64,),
)


def save(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"weights")
    (directory / "inner").mkdir()
    (directory / "inner" / "tokenizer.json").write_text("{}")


def sealed(directory: Path, origin: Origin = ORIGIN, **options: Any) -> ArtifactRecord:
    return seal(directory, origin, save=options.pop("save", save), parameters=7, details={"kept": [1, 2]}, **options)


def test_what_was_sealed_is_what_is_opened(tmp_path: Path) -> None:
    record = sealed(tmp_path / "2-prune")
    assert open_artifact(tmp_path / "2-prune") == record == read_record(tmp_path / "2-prune")
    assert set(record.files) == {"model.safetensors", "inner/tokenizer.json"}
    assert (record.stage, record.key, record.parent) == ("prune", ORIGIN.key, "p" * 64)
    assert (record.parameters, record.lineage, record.details) == (7, ["a" * 64], {"kept": [1, 2]})


def test_the_key_is_that_of_the_inputs_alone() -> None:
    turned = replace(ORIGIN, settings={"rounds": 4, "speedup": 2.0}, inputs={"teacher": "t", "data": "d"}, lineage=())
    assert turned.key == ORIGIN.key


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "distill"},
        {"settings": {"speedup": 2.5, "rounds": 4}},
        {"parent": None},
        {"inputs": {"data": "e", "teacher": "t"}},
        {"seed": 1},
        {"code": "0.1.1"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_input_is_another_key(change: dict[str, Any]) -> None:
    assert replace(ORIGIN, **change).key != ORIGIN.key


def test_the_digest_is_that_of_the_content_alone(tmp_path: Path) -> None:
    first, second = sealed(tmp_path / "a"), sealed(tmp_path / "b", replace(ORIGIN, seed=9, settings={}))
    assert first.digest == second.digest
    other = sealed(tmp_path / "c", save=lambda directory: (directory / "model.safetensors").write_bytes(b"Weights"))
    assert other.digest != first.digest


def test_a_failure_while_saving_leaves_nothing(tmp_path: Path) -> None:
    def fail(directory: Path) -> None:
        save(directory)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        sealed(tmp_path / "out", save=fail)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_replacing_leaves_the_older_one(tmp_path: Path) -> None:
    older = sealed(tmp_path / "out")

    def fail(directory: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sealed(tmp_path / "out", replace(ORIGIN, seed=3), save=fail)
    assert open_artifact(tmp_path / "out") == older
    newer = sealed(tmp_path / "out", replace(ORIGIN, seed=3))
    assert open_artifact(tmp_path / "out") == newer != older


def test_what_is_not_an_artifact_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(BadInput, match="not empty"):
        sealed(tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


def test_every_change_is_named(tmp_path: Path) -> None:
    sealed(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weightS")
    (tmp_path / "inner" / "tokenizer.json").unlink()
    with pytest.raises(BadFile) as caught:
        open_artifact(tmp_path)
    assert "model.safetensors does not match its recorded digest" in str(caught.value)
    assert "inner/tokenizer.json is missing" in str(caught.value)


def test_a_file_that_was_added_is_named(tmp_path: Path) -> None:
    sealed(tmp_path)
    (tmp_path / "inner" / "extra.bin").write_bytes(b"x")
    with pytest.raises(BadFile, match=r"not sealed: inner/extra\.bin"):
        open_artifact(tmp_path)


def test_no_record(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"artifact\.json: there is no such file"):
        open_artifact(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"key": None},
        {"digest": ""},
        {"files": {"model.safetensors": {"sha256": "xyz", "bytes": 7}}},
        {"files": {"model.safetensors": {"sha256": "0" * 64, "bytes": -7}}},
        {"parameters": -1},
        {"surprise": 1},
        {"format": 0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_record_that_is_none_of_ours(change: dict[str, Any], tmp_path: Path) -> None:
    sealed(tmp_path)
    path = tmp_path / RECORD_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadFile, match=rf"not the record of an artifact.*{next(iter(change))}"):
        open_artifact(tmp_path)


def test_a_record_that_is_no_object(tmp_path: Path) -> None:
    (tmp_path / RECORD_FILE).write_text("[]")
    with pytest.raises(BadFile, match="not the record"):
        read_record(tmp_path)


def test_a_record_that_names_a_file_elsewhere(tmp_path: Path) -> None:
    sealed(tmp_path / "out")
    path = tmp_path / "out" / RECORD_FILE
    value = json.loads(path.read_text())
    value["files"]["../../secret"] = {"sha256": "0" * 64, "bytes": 1}
    path.write_text(json.dumps(value))
    with pytest.raises(BadFile, match="unsafe path"):
        open_artifact(tmp_path / "out")


def test_files_that_do_not_make_the_recorded_digest(tmp_path: Path) -> None:
    sealed(tmp_path)
    path = tmp_path / RECORD_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"digest": "f" * 64}))
    with pytest.raises(BadFile, match="digest"):
        open_artifact(tmp_path)
