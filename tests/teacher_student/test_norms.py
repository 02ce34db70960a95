"""Norms that only scale and shift, fitted to those that they replace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.examples import random_rows, tiny_checkpoint
from support.images import image_shape
from torch import Tensor

from models.checkpoint import Checkpoint
from models.encoded import Batch
from models.kinds import Norm, Reads
from models.layers.norm import ElementwiseNorm
from models.shape import HeadShape
from teacher_student.norms import fitted_line, refitted_norms, with_elementwise_norms

ROWS = np.arange(24)
KEPT = list(range(20))


def rows() -> Batch:
    return random_rows(24).batch(ROWS)


def distance(one: Checkpoint, other: Checkpoint) -> float:
    with torch.inference_mode():
        mine, theirs = (model.network().features(**rows().inputs).hidden[-1] for model in (one, other))
    return float((mine - theirs)[rows().mask].square().mean())


def test_the_line_is_the_one_of_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    read = torch.randn(50, 3, generator=generator)
    written = 2 * read + torch.randn(50, 3, generator=generator)
    weight, bias = fitted_line(read, written)
    for channel in range(3):
        slope, height = np.polyfit(read[:, channel].numpy(), written[:, channel].numpy(), 1)
        assert float(weight[channel]) == pytest.approx(slope, abs=1e-5)
        assert float(bias[channel]) == pytest.approx(height, abs=1e-5)


def test_a_channel_that_never_changes_writes_the_mean() -> None:
    weight, bias = fitted_line(torch.full((4, 1), 3.0), torch.tensor([[1.0], [2.0], [3.0], [6.0]]))
    assert (float(weight), float(bias)) == (0.0, 3.0)


@pytest.mark.parametrize("norm", [Norm.LAYER, Norm.RMS])
@pytest.mark.parametrize("pre_norm", [False, True])
def test_every_norm_is_replaced_and_nothing_else(norm: Norm, pre_norm: bool, tmp_path: Path) -> None:
    teacher = tiny_checkpoint(norm=norm, pre_norm=pre_norm, embedding_size=20, head=HeadShape(("a", "b"), normed=True))
    student = with_elementwise_norms(teacher, rows())
    assert student.shape == replace(teacher.shape, norm=Norm.ELEMENTWISE)
    norms = [name for name, one in student.network().named_modules() if isinstance(one, ElementwiseNorm)]
    assert len(norms) == 6 + pre_norm
    for name, weight in teacher.weights.items():
        assert torch.equal(student.weights[name], weight) == ("norm." not in name), name
    student.save(tmp_path)
    assert Checkpoint.load(tmp_path).shape == student.shape


def test_the_first_norm_is_the_line_of_its_own_tokens() -> None:
    teacher = tiny_checkpoint()
    student = with_elementwise_norms(teacher, rows())
    seen: list[Tensor] = []
    network, batch = teacher.network(), rows()
    network.embeddings.norm.register_forward_hook(lambda module, given, written: seen.extend([given[0], written]))
    network(**batch.inputs)
    weight, bias = fitted_line(seen[0][batch.mask], seen[1][batch.mask])
    torch.testing.assert_close(student.weights["embeddings.norm.weight"], weight)
    torch.testing.assert_close(student.weights["embeddings.norm.bias"], bias)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_fitted_norms_are_nearer_than_copied_ones(pre_norm: bool) -> None:
    teacher = tiny_checkpoint(pre_norm=pre_norm)
    copied = Checkpoint(replace(teacher.shape, norm=Norm.ELEMENTWISE), teacher.weights, teacher.reader)
    fitted = with_elementwise_norms(teacher, rows())
    assert 0 < distance(teacher, fitted) < 0.5 * distance(teacher, copied)


def test_padding_does_not_count() -> None:
    teacher, batch = tiny_checkpoint(), rows()
    ids = torch.where(batch.mask, batch.inputs["input_ids"], 7)
    other = batch._replace(inputs={**batch.inputs, "input_ids": ids})
    for name, weight in with_elementwise_norms(teacher, batch).weights.items():
        torch.testing.assert_close(with_elementwise_norms(teacher, other).weights[name], weight)


def test_images_have_norms_too() -> None:
    shape = image_shape(head=HeadShape(("a", "b"), reads=Reads.MEAN, dense=False))
    teacher = Checkpoint.new(shape, tiny_checkpoint().reader, seed=0)
    pixels = torch.randn(4, shape.image.channels, shape.image.height, shape.image.width)
    mask = torch.ones(4, shape.image.tokens, dtype=torch.bool)
    batch = Batch({"pixel_values": pixels}, mask, torch.zeros(4), torch.arange(4))
    student = with_elementwise_norms(teacher, batch)
    assert student.network()(pixels).isfinite().all()


def cut_down(whole: Checkpoint, kept: list[int]) -> Checkpoint:
    """Return the checkpoint with these channels of the stream and of the head, in every weight that has them."""
    shape = replace(whole.shape, hidden_size=len(kept))
    slots = Checkpoint.new(shape, whole.reader, seed=0).weights
    weights = {}
    for name, weight in whole.weights.items():
        for axis, size in enumerate(slots[name].shape):
            weight = weight if size == weight.shape[axis] else weight.index_select(axis, torch.tensor(kept))
        weights[name] = weight
    return Checkpoint(shape, weights, whole.reader)


def narrowed(whole: Checkpoint) -> tuple[Checkpoint, Checkpoint]:
    """Return what is left of 20 channels, and that with its norms fitted."""
    narrow = cut_down(whole, KEPT)
    return narrow, refitted_norms(narrow, whole, rows(), stream=KEPT, head={"head.dense": KEPT})


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({}, "embeddings.norm"),
        ({"pre_norm": True}, "embeddings.norm"),
        ({"embedding_size": 32}, "layers.0.attention_norm"),
        ({"norm": Norm.ELEMENTWISE}, "layers.0.attention_norm"),
    ],
)
def test_norms_of_fewer_channels_write_what_they_wrote(changes: dict[str, Any], first: str) -> None:
    whole = tiny_checkpoint(head=HeadShape(("a", "b"), normed=True), **changes)
    narrow, fitted = narrowed(whole)
    assert fitted.shape == narrow.shape
    for name, weight in narrow.weights.items():
        assert "norm." in name or torch.equal(fitted.weights[name], weight), name

    def off(one: Checkpoint) -> float:
        found: list[Tensor] = []
        for model in (one, whole):
            network = model.network()
            norm = network.get_submodule(first)
            norm.register_forward_hook(lambda module, given, written: found.append(written[rows().mask][:, :20]))
            with torch.inference_mode():
                network(**rows().inputs)
        return float((found[0] - found[1]).square().mean())

    assert off(fitted) < off(narrow)


def test_norms_of_the_same_width_and_those_without_a_bias_stay() -> None:
    narrow, fitted = narrowed(tiny_checkpoint(embedding_size=32))
    for name in ("embeddings.norm.weight", "embeddings.norm.bias"):
        torch.testing.assert_close(fitted.weights[name], narrow.weights[name])
    narrow, fitted = narrowed(tiny_checkpoint(norm=Norm.RMS, pre_norm=True))
    assert all(torch.equal(fitted.weights[name], weight) for name, weight in narrow.weights.items())
