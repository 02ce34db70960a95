"""How many layers a student is given, what they are made of, how they read, and how long a text may be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from support.examples import random_rows, tiny_checkpoint, tiny_context
from support.networks import EFFICIENT, tiny_shape

from compress.pruning.latency_table import Clock
from compress.quantization.schemes import forms_of, quantize
from compress.recipe import make_recipe
from compress.settings import ArchitectureSettings, DistillSettings
from compress.stages.distill import DISTILL, plan, untrained
from export.lower import lower
from export.parity import FLOAT_BOUND, INT8_BOUND, compare
from export.target import CPU
from models.checkpoint import Checkpoint
from models.errors import BadInput
from models.kinds import Activation, Norm
from models.shape import LayerShape, ModelShape, RelativeBias
from teacher_student.student import StudentPlan, build_student

TEACHER = tiny_shape((LayerShape(2, 8, 12),) * 6)


@pytest.mark.parametrize(("asked", "kept"), [(3, 3), (0.67, 4), (0.5, 3), (0.01, 1), ((0, 5), 2), (1, 1)])
def test_layers_are_a_number_a_share_or_a_list(asked: object, kept: int) -> None:
    found = plan(TEACHER, DistillSettings(layers=asked))
    assert isinstance(found, StudentPlan)
    assert len(found.shape.layers) == kept


@pytest.mark.parametrize(("asked", "next_"), [(3, 4), (0.5, 4), ((0, 1, 5), 4), (0.9, None)])
def test_a_milder_student_has_one_more_layer(asked: object, next_: int | None) -> None:
    milder = DISTILL.milder(DistillSettings(layers=asked), {"teacher_layers": 6})
    assert (None if milder is None else milder.layers) == next_


FULL = LayerShape(2, 8, 12)


def shape_of(teacher: ModelShape, **settings: Any) -> ModelShape:
    found = plan(teacher, DistillSettings(layers=3, **settings))
    return found.shape if isinstance(found, StudentPlan) else found


@pytest.mark.parametrize(
    ("asked", "layers"),
    [
        ({}, (FULL,) * 3),
        ({"attention": "full"}, (FULL,) * 3),
        ({"attention": "window"}, (replace(FULL, window=64, global_tokens=1),) * 3),
        ({"attention": "window", "window": 9, "global_tokens": 0}, (replace(FULL, window=9),) * 3),
        ({"attention": "linear"}, (replace(FULL, linear=True),) * 3),
        ({"attention": "linear", "attention_layers": (0, 2)}, (linear := replace(FULL, linear=True), FULL, linear)),
    ],
)
def test_how_a_student_reads(asked: dict[str, Any], layers: tuple[LayerShape, ...]) -> None:
    assert shape_of(TEACHER, **asked).layers == layers


def test_the_teacher_s_way_of_reading_is_kept_or_made_full() -> None:
    teacher = tiny_shape(EFFICIENT)
    assert shape_of(teacher).layers == EFFICIENT
    for layer in shape_of(teacher, attention="full").layers:
        assert (layer.window, layer.global_tokens, layer.linear) == (None, 0, False)


def test_a_student_of_its_own_size_reads_as_asked() -> None:
    own = ArchitectureSettings(layers=2, hidden_size=16, heads=2, ffn=8)
    shape = shape_of(TEACHER, architecture=own, attention="linear", positions=64)
    assert [layer.linear for layer in shape.layers] == [True, True]
    assert shape.usable_positions == 64


@pytest.mark.parametrize(
    "asked",
    [
        {"window": 8},
        {"attention": "linear", "window": 8},
        {"attention": "full", "global_tokens": 0},
        {"attention_layers": (0,)},
        {"attention": "window", "window": 0},
        {"architecture": {}, "activation": "relu"},
        {"architecture": {}, "hidden_size": 32},
        {"hidden_size": 0},
        {"hidden_size": 40},
    ],
)
def test_keys_that_would_do_nothing_are_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DistillSettings(**asked)


def test_a_recipe_is_the_same_after_it_was_written() -> None:
    recipe = make_recipe({"name": "a", "distill": {"attention": "window", "window": 16}}, where="test")
    assert make_recipe(recipe.model_dump(mode="json"), where="test") == recipe


def test_layers_that_the_student_does_not_have_are_refused() -> None:
    with pytest.raises(BadInput, match="the student has 3 layers, and no layer 5"):
        shape_of(TEACHER, attention="linear", attention_layers=(5,))


@pytest.mark.parametrize("offset", [0, 2])
def test_a_longer_student_repeats_the_positions(offset: int) -> None:
    teacher = tiny_checkpoint(max_positions=10 + offset, position_offset=offset)
    made = plan(teacher.shape, DistillSettings(layers=2, attention="window", window=4, positions=25))
    student = build_student(teacher, made, seed=0)
    old, new = teacher.weights["embeddings.position.weight"], student.weights["embeddings.position.weight"]
    assert len(new) == 25 + offset
    assert torch.equal(new[: 10 + offset], old)
    for place in range(25):
        assert torch.equal(new[offset + place], old[offset + place % 10])
    ids = torch.randint(2, 50, (1, 25))
    assert student.network()(ids).shape == (1, 3)


@pytest.mark.parametrize("attention", ["window", "linear"])
@pytest.mark.parametrize("relative", [None, RelativeBias(8, 5)], ids=str)
def test_a_student_starts_from_the_teacher_s_attention(attention: Any, relative: RelativeBias | None) -> None:
    teacher = tiny_checkpoint(relative=relative)
    made = plan(teacher.shape, DistillSettings(layers=2, attention=attention))
    student = build_student(teacher, made, seed=1)
    left_out = {f"layers.{index}.attention.relative.weight" for index in range(2)}
    left_out = left_out if relative is not None and attention == "linear" else set()
    assert set(student.weights) == set(teacher.weights) - left_out
    for name, weight in student.weights.items():
        assert torch.equal(weight, teacher.weights[name]), name
    if attention == "window":  # of 64 tokens: no text here is longer
        ids = torch.randint(2, 50, (2, 12))
        torch.testing.assert_close(student.network()(ids), teacher.network()(ids), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["window", "linear"])
def test_a_student_that_reads_otherwise_learns(attention: Any, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    teacher = tiny_checkpoint()
    context = tiny_context(tmp_path, teacher, train=random_rows(32, labels=0))
    window = 1 if attention == "window" else None
    brief = {"layers": 2, "epochs": 8, "batch_size": 8, "learning_rate": 1e-3, "dropout": 0.0}
    settings = DistillSettings(**brief, attention=attention, window=window)
    output = DISTILL.run(teacher, settings, context)
    assert [(one.window, one.linear) for one in output.product.shape.layers] == [(window, window is None)] * 2
    batch = random_rows(32).batch(torch.arange(32).numpy())

    def distance(checkpoint: Any) -> float:
        with torch.inference_mode():
            wanted, found = (one.network()(**batch.inputs) for one in (teacher, checkpoint))
        return float((found - wanted).square().mean())

    fresh = build_student(teacher, plan(teacher.shape, settings), seed=0)
    assert 0 < distance(output.product) < distance(fresh)


def test_the_activation_is_the_teacher_s_or_what_is_asked() -> None:
    assert shape_of(TEACHER).activation is Activation.GELU
    assert shape_of(TEACHER, activation="relu").activation is Activation.RELU
    teacher = replace(TEACHER, activation=Activation.RELU)
    assert shape_of(teacher).activation is Activation.RELU
    own = ArchitectureSettings(layers=2, hidden_size=16, heads=2, ffn=8, activation="relu")
    assert shape_of(TEACHER, architecture=own).activation is Activation.RELU


@pytest.mark.parametrize("width", [None, 32])
def test_a_student_for_the_runtime_learns_and_is_exported(
    width: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    timed: list[int] = []

    def speedup(clock: Clock, parent: Checkpoint, candidate: Checkpoint) -> float:
        timed.extend([parent.shape.hidden_size, candidate.shape.hidden_size])
        return 1.25

    monkeypatch.setattr(Clock, "speedup", speedup)
    teacher = tiny_checkpoint(hidden_size=64)
    context = tiny_context(tmp_path, teacher, train=(rows := random_rows(128, labels=0)))
    brief = {"layers": 2, "epochs": 8, "batch_size": 8, "learning_rate": 1e-3, "dropout": 0.0}
    losses = {"mse": 1.0, "hidden": 1.0}
    settings = DistillSettings(**brief, hidden_size=width, activation="relu", norm="elementwise", losses=losses)
    student, told = (output := DISTILL.run(teacher, settings, context)).product, output.details
    assert (student.shape.activation, student.shape.norm) == (Activation.RELU, Norm.ELEMENTWISE)
    assert student.shape.hidden_size == (width or 64)
    assert timed == ([] if width is None else [64, 32])
    gain = {"before": 64, "after": 32, "measured_speedup": 1.25}
    assert told.get("hidden_size") == (None if width is None else gain)
    batch = rows.batch(np.arange(64))

    def distance(checkpoint: Checkpoint) -> float:
        with torch.inference_mode():
            wanted, found = (one.network()(**batch.inputs) for one in (teacher, checkpoint))
        return float((found - wanted).square().mean())

    assert 0 < distance(student) < distance(untrained(teacher, settings, context)[0])
    for deployed, bound in ((student, FLOAT_BOUND), (quantize(student, forms_of(student)), INT8_BOUND)):
        calls = [random_rows(8).batch(np.array([row])).inputs for row in range(8)]
        arrays = [{name: value.numpy() for name, value in call.items()} for call in calls]
        network = deployed.network()
        compare(network, lower(network, CPU).SerializeToString(), arrays).check(bound)


def test_the_same_teacher_makes_the_same_student(tmp_path: Path) -> None:
    teacher = tiny_checkpoint()
    context = tiny_context(tmp_path, teacher, train=random_rows(300, labels=0))
    settings = DistillSettings(layers=2, norm="elementwise")
    one, other = (untrained(teacher, settings, context)[0] for _ in range(2))
    assert all(torch.equal(weight, other.weights[name]) for name, weight in one.weights.items())
