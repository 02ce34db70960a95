"""A network that finds objects, from its training to a bundle that answers, on drawn images."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from support.examples import TINY_PRUNING
from support.images import encoded

from compress import gates, measure
from compress.bootstrap import paired_summaries, summary_interval
from compress.cli.options import Look
from compress.inspecting import evaluate_model
from compress.pipeline import execute, require_passed
from compress.recipe import make_recipe
from compress.record import RunResult
from compress.report.files import write_report
from export.bundle import Bundle
from export.manifest import MANIFEST_FILE
from export.verify import verify_bundle
from models.boxes import overlaps
from models.checkpoint import Checkpoint
from models.errors import BadInput

SIDE = 16
KINDS = {"tall": (4, 8), "wide": (8, 4)}  # width and height
ARCHITECTURE = {
    "family": "yolos",
    "layers": 2,
    "hidden_size": 32,
    "heads": 2,
    "ffn": 64,
    "image_size": SIDE,
    "patch_size": 8,
    "channels": 1,
    "detection_tokens": 3,
    "initializer_range": 0.15,
}


def write_objects(folder: Path, *, rows: int, seed: int, labelled: bool = True) -> str:
    """Write images of 16 x 16 grey pixels with up to two bright bars in different quarters, and what is in them."""
    draw = np.random.default_rng(seed)
    folder.mkdir()
    images, notes = [], []
    for row in range(rows):
        pixels = draw.integers(0, 90, (SIDE, SIDE))
        for quarter in draw.permutation(4)[: draw.integers(0, 3)]:
            kind = int(draw.integers(2))
            (width, height), (upper, left) = list(KINDS.values())[kind], np.array(divmod(quarter, 2)) * 8
            pixels[upper : upper + height, left : left + width] += 150
            box = [int(left), int(upper), width, height]
            notes.append({"id": len(notes), "image_id": row, "category_id": kind, "bbox": box})
        images.append({"id": row, "file_name": f"{row}.png", "width": SIDE, "height": SIDE})
        (folder / f"{row}.png").write_bytes(encoded(pixels.astype(np.uint8)))
    categories = [{"id": number, "name": name} for number, name in enumerate(KINDS)]
    value = {"images": images, "categories": categories, **({"annotations": notes} if labelled else {})}
    (folder / "annotations.json").write_text(json.dumps(value), encoding="utf-8")
    return str(folder)


def recipe_of(folder: Path) -> dict[str, Any]:
    losses = {"kl": 1.0, "mse": 0.0, "labels": 0.5}
    return {
        "name": "tiny",
        "task": "object-detection",
        "data": {
            "train": write_objects(folder / "train", rows=400, seed=0),
            "validation": write_objects(folder / "validation", rows=100, seed=1),
        },
        "train": {"epochs": 25, "batch_size": 16, "learning_rate": 3e-3, "architecture": ARCHITECTURE},
        "distill": {"layers": 1, "epochs": 8, "batch_size": 16, "learning_rate": 2e-3, "losses": losses},
        "prune": TINY_PRUNING | {"recovery": {"epochs": 2.0, "learning_rate": 1e-3, "losses": losses}},
        "quantize": {"calibration_examples": 16},
        "export": {"golden": 2},
        "gates": {"default": {"accuracy": {"max_loss": 95.0}}},
        "measure": {"rounds": 4, "texts": 4},
    }


class Done(NamedTuple):
    """A run in `folder`: its recipe, and what it told."""

    plain: dict[str, Any]
    folder: Path
    result: RunResult


@pytest.fixture(autouse=True, scope="module")
def few_draws() -> Iterator[None]:
    """Draw the images anew less often: average precision takes long, and no test needs an interval's exact ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "summary_interval", partial(summary_interval, resamples=500))
        patch.setattr(gates, "paired_summaries", partial(paired_summaries, resamples=500))
        yield


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory, few_draws: None) -> Done:
    folder = tmp_path_factory.mktemp("detector")
    plain = recipe_of(folder)
    return Done(plain, folder, execute(make_recipe(plain, where="test"), out=folder, cache=folder / "cache"))


def test_objects_from_training_to_a_bundle_that_answers(detector: Done, tmp_path: Path) -> None:
    plain, folder, result = detector
    require_passed(result)
    assert [stage.stage for stage in result.stages] == ["train", "distill", "prune", "quantize", "export"]
    found = [stage.validation for stage in result.stages]
    assert {one.metric for one in found} == {"map"}
    assert found[0].estimate > 0.4  # no training gives 0.00
    assert found[1].estimate > 0.3
    assert found[3].estimate > 0.2
    assert found[4].estimate == pytest.approx(found[3].estimate, abs=0.02)  # the runtime's, and the network's own
    losses = [point["losses"]["labels"] for point in result.stages[0].artifact.details["training"]["points"]]
    assert losses[-1] < losses[0] / 3
    assert found[0].low < found[0].estimate < found[0].high
    assert {"head.classes.first", "head.boxes.output"} <= set(result.stages[3].artifact.details["forms"])
    run, directory = folder / "tiny", folder / "tiny" / "bundle"
    verify_bundle(directory)
    bundle = Bundle.open(directory)
    assert bundle.shape.labels == ("tall", "wide")
    assert [(port.name, port.shape) for port in bundle.manifest.outputs] == [
        ("logits", ["batch", 3, 3]),
        ("pred_boxes", ["batch", 3, 4]),
    ]
    assert _share_found(bundle, folder / "validation") > 0.3
    assert "object-detection" in json.loads((directory / MANIFEST_FILE).read_text())["shape"]["head"]["task"]
    assert json.loads((directory / "config.json").read_text())["architectures"] == ["YolosForObjectDetection"]
    write_report(result, run)
    assert "map" in (run / "report.html").read_text()
    look = Look(data=plain["data"]["validation"], teacher=str(run / "0-train"), cache=tmp_path)
    assert evaluate_model(str(directory), look)["estimate"] == found[-1].estimate
    _check_readme(directory, folder / "validation")
    (tmp_path / "theirs").mkdir()
    Checkpoint.load(run / "0-train").save_hugging_face(tmp_path / "theirs")
    _refused(plain, run, tmp_path)


def _share_found(bundle: Bundle, folder: Path) -> float:
    """Return how many of the objects are answered with the right kind and nearly the right box."""
    notes = json.loads((folder / "annotations.json").read_text())
    answers = bundle.predict([str(folder / image["file_name"]) for image in notes["images"]])
    hits = 0
    for note in notes["annotations"]:
        left, upper, width, height = note["bbox"]
        wanted = np.array([[left + width / 2, upper + height / 2, width, height]])
        for one in answers[note["image_id"]].values["objects"]:
            box = one["box"]
            centre = [(box["xmin"] + box["xmax"]) / 2, (box["ymin"] + box["ymax"]) / 2]
            given = np.array([[*centre, box["xmax"] - box["xmin"], box["ymax"] - box["ymin"]]])
            if one["label"] == list(KINDS)[note["category_id"]] and overlaps(wanted, given)[0, 0] > 0.5:
                hits += 1
                break
    return hits / len(notes["annotations"])


def _check_readme(directory: Path, folder: Path) -> None:
    """What a bundle's page shows prints an object of an image that has one."""
    notes = json.loads((folder / "annotations.json").read_text())
    bundle = Bundle.open(directory)
    names = [image["file_name"] for image in notes["images"]]
    sure = next(name for name in names if bundle.predict([str(folder / name)], threshold=0.9)[0].values["objects"])
    code = (directory / "README.md").read_text().split("```python\n")[1].split("```")[0]
    code = code.replace("image.png", str(folder / sure))
    done = subprocess.run([sys.executable, "-c", code], cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] in KINDS


def _refused(plain: dict[str, Any], run: Path, folder: Path) -> None:
    """What a network that finds objects cannot do is said before anything is computed."""
    of_teacher = {key: value for key, value in plain.items() if key != "train"} | {"teacher": str(run / "0-train")}
    cases = (
        (plain | {"train": plain["train"] | {"architecture": ARCHITECTURE | {"family": "vit"}}}, "there are none"),
        (of_teacher | {"ensemble": [str(run / "0-train")]}, "there is no mean of theirs"),
        (of_teacher | {"task": "image-classification"}, "this folder|no label column|has 2 for each box"),
    )
    for number, (recipe, says) in enumerate(cases):
        with pytest.raises(BadInput, match=says):
            execute(make_recipe(recipe | {"name": f"bad-{number}"}, where="test"), out=folder, cache=folder / "cache")


@pytest.mark.usefixtures("timed_by_size")
def test_a_student_learns_from_images_without_labels(detector: Done, tmp_path: Path) -> None:
    plain = detector.plain
    unlabelled = write_objects(tmp_path / "more", rows=200, seed=2, labelled=False)
    student = {
        "name": "student",
        "teacher": str(detector.folder / "tiny" / "0-train"),
        "data": plain["data"] | {"train": unlabelled, "extra": plain["data"]["train"]},
        "distill": plain["distill"] | {"losses": {"kl": 1.0, "mse": 0.0, "hidden": 1.0}},
        "gates": {"default": {"accuracy": {"max_loss": 95.0}}},
        "measure": {"rounds": 4, "texts": 4},
    }
    result = execute(make_recipe(student, where="test"), out=tmp_path, cache=tmp_path / "cache")
    losses = [point["losses"]["kl"] for point in result.stages[-1].artifact.details["training"]["points"]]
    assert losses[-1] < losses[0] / 2
    assert result.stages[-1].validation.estimate > 0.5 * result.stages[0].validation.estimate
