"""Students made for the runtime, from a teacher's training to a bundle that answers, and back out of their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.examples import TINY_PRUNING, random_rows, tiny_checkpoint, tiny_context, write_data
from transformers import AutoModelForSequenceClassification

from compress.pipeline import execute, require_passed
from compress.recipe import make_recipe
from compress.settings import DistillSettings
from compress.stages.distill import DISTILL
from export.bundle import Bundle
from export.verify import verify_bundle
from models.checkpoint import Checkpoint
from models.kinds import Activation, Norm
from models.shape import LayerShape

LAYERS = (LayerShape(4, 16, 48),) * 3
MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "relu, elementwise": ("static", {"activation": "relu", "norm": "elementwise"}),
    "all": ("dynamic", {"activation": "relu", "norm": "elementwise", "hidden_size": 32}),
    "narrow": ("dynamic", {"hidden_size": 32, "losses": {"mse": 1.0, "hidden": 0.5}}),
}


def recipe_of(folder: Path, asked: dict[str, Any], activations: str) -> dict[str, Any]:
    (folder / "teacher").mkdir()
    tiny_checkpoint(LAYERS, hidden_size=64).save(folder / "teacher")
    brief = {"epochs": 2.0, "batch_size": 16, "learning_rate": 1e-3}
    return {
        "name": "tiny",
        "teacher": str(folder / "teacher"),
        "data": write_data(folder),
        "distill": {"layers": 2, **brief, **asked},
        "prune": TINY_PRUNING | {"sublayers": "removable", "recovery": brief},
        "quantize": {"calibration_examples": 16, "activations": activations},
        "export": {"golden": 4},
        "gates": {"default": {"accuracy": {"max_loss": 95.0}}},
        "measure": {"rounds": 4, "texts": 4},
    }


@pytest.mark.usefixtures("timed_by_size")
@pytest.mark.parametrize("made", MADE)
def test_every_stage_takes_it(made: str, tmp_path: Path) -> None:
    activations, asked = MADE[made]
    recipe = make_recipe(recipe_of(tmp_path, asked, activations), where="test")
    result = execute(recipe, out=tmp_path, cache=tmp_path / "cache")
    require_passed(result)
    run = tmp_path / "tiny"
    student, pruned, quantized = (Checkpoint.load(run / name) for name in ("1-distill", "2-prune", "4-quantize"))
    for checkpoint in (student, pruned, quantized, Bundle.open(run / "bundle")):
        shape = checkpoint.shape
        assert shape.activation is (Activation.RELU if "activation" in asked else Activation.GELU)
        assert shape.norm is (Norm.ELEMENTWISE if "norm" in asked else Norm.LAYER)
        assert shape.hidden_size == asked.get("hidden_size", 64)
    assert pruned.shape.layers != student.shape.layers and quantized.shape.int8
    verify_bundle(run / "bundle")
    told = result.stages[1].artifact.details
    assert ("hidden_size" in told) == ("hidden_size" in asked)
    unsaid = json.loads((run / "1-distill" / "model.json").read_text())["not_for_hugging_face"]
    assert ("norm" in asked) == ("norm elementwise instead of layer_norm" in unsaid)
    assert ("hidden_size" in asked) == ("size of a head 16 instead of 8" in unsaid)


def test_a_student_with_relu_is_read_by_transformers(tmp_path: Path) -> None:
    teacher = tiny_checkpoint(LAYERS, hidden_size=64)
    settings = DistillSettings(layers=2, epochs=0.5, activation="relu")
    student = DISTILL.run(teacher, settings, tiny_context(tmp_path, teacher, train=random_rows(64, labels=0))).product
    for name, save in (("ours", student.save), ("theirs", student.save_hugging_face)):
        (tmp_path / name).mkdir()
        save(tmp_path / name)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "theirs").eval()
    batch = random_rows(8).batch(np.arange(8))
    assert json.loads((tmp_path / "ours" / "model.json").read_text())["not_for_hugging_face"] is None
    with torch.inference_mode():
        torch.testing.assert_close(
            student.network()(**batch.inputs), theirs(**batch.inputs).logits, atol=1e-5, rtol=1e-5
        )
