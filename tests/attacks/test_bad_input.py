"""Whatever is wrong with what a user gives: exit code 2, what and where is said, and nothing is half-written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.examples import tiny_checkpoint, write_data

from compress.cli import main

ROOT = Path(__file__).parents[2]


class Scene:
    """A recipe with everything right, before something is broken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.teacher = folder / "teacher"
        self.teacher.mkdir()
        tiny_checkpoint().save(self.teacher)
        self.recipe: dict[str, Any] = {
            "name": "tiny",
            "teacher": str(self.teacher),
            "data": write_data(folder),
            "distill": {"layers": 1, "epochs": 1, "batch_size": 16},
            "quantize": {"calibration_examples": 8},
            "export": {"golden": 2},
            "gates": {"default": {}},
            "measure": {"rounds": 4, "texts": 4},
            "threads": 1,
        }

    def file(self, role: str) -> Path:
        return Path(self.recipe["data"][role])

    @property
    def words(self) -> list[str]:
        path = self.folder / "recipe.yaml"
        path.write_text(json.dumps(self.recipe), encoding="utf-8")
        return ["run", str(path), "--out", str(self.folder / "runs"), "--cache", str(self.folder / "cache")]

    def run(self) -> int:
        with pytest.raises(SystemExit) as stop:
            main(self.words)
        return int(stop.value.code or 0)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def missing_file(scene: Scene) -> None:
    scene.file("train").unlink()


def empty_file(scene: Scene) -> None:
    scene.file("train").write_text("")


def unknown_label(scene: Scene) -> None:
    scene.file("validation").write_text('{"text": "w3", "label": "no such class"}\n')


def missing_column(scene: Scene) -> None:
    scene.recipe["data"]["text"] = "sentense"


def unsupported_family(scene: Scene) -> None:
    (scene.teacher / "model.json").unlink()
    (scene.teacher / "config.json").write_text('{"model_type": "xlnet"}')


def truncated_weights(scene: Scene) -> None:
    weights = scene.teacher / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def foreign_tokenizer(scene: Scene) -> None:
    path = scene.teacher / "tokenizer.json"
    value = json.loads(path.read_text())
    value["model"]["vocab"]["beyond"] = 1_000_000
    path.write_text(json.dumps(value))


def misspelt_key(scene: Scene) -> None:
    scene.recipe["distill"]["learning_rat"] = 0.1


def wrong_type(scene: Scene) -> None:
    scene.recipe["distill"]["epochs"] = "many"


def unlabelled_validation(scene: Scene) -> None:
    scene.file("validation").write_text('{"text": "w3"}\n{"text": "w4"}\n')


def no_validation(scene: Scene) -> None:
    del scene.recipe["data"]["validation"]


def no_teacher(scene: Scene) -> None:
    scene.recipe["teacher"] = str(scene.folder / "nowhere")


def occupied_output(scene: Scene) -> None:
    place = scene.folder / "runs" / "tiny"
    place.mkdir(parents=True)
    (place / "thesis.txt").write_text("mine")


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (missing_file, ["train.jsonl", "no such file"]),
        (empty_file, ["train.jsonl", "empty"]),
        (unknown_label, ["validation.jsonl", "no such class"]),
        (missing_column, ["sentense", "text"]),
        (unsupported_family, ["'xlnet'", "bert", "distilbert", "roberta"]),
        (truncated_weights, ["model.safetensors"]),
        (foreign_tokenizer, ["1000000", "tokenizer.json"]),
        (misspelt_key, ["learning_rat", "learning_rate"]),
        (wrong_type, ["distill.epochs"]),
        (unlabelled_validation, ["validation.jsonl", "label"]),
        (no_validation, ["--validation"]),
        (no_teacher, ["nowhere"]),
        (occupied_output, ["something else", "thesis.txt"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_input(
    scene: Scene, harm: Callable[[Scene], None], told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    harm(scene)
    before = {path for path in scene.folder.rglob("*") if path.is_file()} | {scene.folder / "recipe.yaml"}
    assert scene.run() == 2
    message = capsys.readouterr().err
    for words in told:
        assert words in message.replace("\n", ""), message
    assert "Traceback" not in message
    made = {path for path in scene.folder.rglob("*") if path.is_file()} - before
    made = {path for path in made if "cache" not in path.relative_to(scene.folder).parts}
    assert made <= {scene.folder / "runs" / "tiny" / ".lock"}


@pytest.mark.usefixtures("timed_by_size")
def test_long_texts_are_cut_counted_and_told(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    longest = " ".join(["w3"] * 500)
    with scene.file("validation").open("a") as file:
        file.write(json.dumps({"text": longest, "label": 0}) + "\n")
    with pytest.raises(SystemExit) as stop:
        main([*scene.words, "--json"])
    assert stop.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert "truncated" in json.dumps(told)
    result = json.loads((scene.folder / "runs" / "tiny" / "run.json").read_text())
    assert {entry["role"]: entry["truncated"] for entry in result["data"]}["validation"] == 1


# One process for all limits: loading everything takes longest, and cannot be gone on with once it failed.
LIMITED = """
import contextlib, io, json, resource, signal, sys
import compress.pipeline, torch._dynamo
from compress.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
found = []
for most, words in json.loads(sys.argv[1]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main(words)
        except SystemExit as stop:
            found.append([stop.code, said.getvalue()])
json.dump(found, sys.stdout)
"""
LIMITS = (0, 500, 5_000, 20_000, 60_000)


class Limited(NamedTuple):
    """A scene whose command could write no more: how it ended, and what it said."""

    scene: Scene
    code: int
    said: str


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Limited]:
    scenes = [Scene(tmp_path_factory.mktemp("scene")) for _ in LIMITS]
    words = json.dumps([(most, scene.words) for most, scene in zip(LIMITS, scenes, strict=True)])
    done = subprocess.run([sys.executable, "-c", LIMITED, words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = zip(LIMITS, scenes, json.loads(done.stdout), strict=True)
    return {most: Limited(scene, *told) for most, scene, told in found}


@pytest.mark.parametrize("most", LIMITS)
@pytest.mark.usefixtures("timed_by_size")
def test_a_disk_that_takes_no_more(limited: dict[int, Limited], most: int) -> None:
    scene, code, said = limited[most]
    assert code == 2, said[-3000:]
    assert "Traceback" not in said
    for record in (scene.folder / "runs").rglob("artifact.json"):
        json.loads(record.read_text())
    # What was finished stands, and the same command goes on from there.
    assert scene.run() == 0
