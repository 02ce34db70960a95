from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.examples import random_rows, tiny_checkpoint
from support.networks import EFFICIENT

from compress.pruning.importance import Criterion, score_units
from compress.quantization.schemes import forms_of, quantize
from models.content import Tokens
from models.errors import BadInput
from models.shape import LayerShape
from models.tasks.text_classification import TextClassification

TASK = TextClassification()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def loss_with_masks(checkpoint, data, row: int, masks: dict[str, torch.Tensor]) -> torch.Tensor:
    network = checkpoint.network()
    for path, mask in masks.items():
        module = network.get_submodule(path)
        module.register_forward_pre_hook(lambda module, given, mask=mask: (given[0] * mask,))
    batch = data.batch(np.array([row]))
    return TASK.loss(network(**batch.inputs), batch.targets)


@pytest.mark.parametrize("criterion", Criterion)
@pytest.mark.parametrize("layers", [(LayerShape(3, 4, 6), LayerShape(2, 4, 5)), EFFICIENT], ids=["full", "efficient"])
def test_scores_are_gradients_on_masks_example_by_example(criterion: Criterion, layers: tuple[LayerShape, ...]) -> None:
    checkpoint, data = tiny_checkpoint(layers), random_rows(4)
    scores = score_units(checkpoint, data, TASK, examples=100, seed=0, criterion=criterion)
    for index, layer in enumerate(layers):
        for values, path, count, size in (
            (scores[f"layers.{index}.attention"], f"layers.{index}.attention.output", layer.heads, layer.head_size),
            (scores[f"layers.{index}.ffn"], f"layers.{index}.ffn.down", layer.ffn, 1),
        ):
            wanted = torch.zeros(count)
            for row in range(len(data)):
                mask = torch.ones(count, requires_grad=True)
                loss = loss_with_masks(checkpoint, data, row, {path: mask.repeat_interleave(size)})
                (gradient,) = torch.autograd.grad(loss, mask)
                wanted += gradient.square() if criterion is Criterion.FISHER else gradient.abs()
            np.testing.assert_allclose(values, wanted.numpy(), rtol=1e-3, atol=1e-9)


def test_a_unit_that_nothing_reads_scores_nothing() -> None:
    checkpoint = tiny_checkpoint()
    weights = dict(checkpoint.weights)
    weights["layers.0.ffn.down.weight"] = weights["layers.0.ffn.down.weight"].clone()
    weights["layers.0.ffn.down.weight"][:, 7] = 0
    weights["layers.1.attention.output.weight"] = weights["layers.1.attention.output.weight"].clone()
    weights["layers.1.attention.output.weight"][:, 8:16] = 0
    for labels in (3, 0):
        scores = score_units(
            replace(checkpoint, weights=weights), random_rows(20, labels=labels), TASK, examples=20, seed=0
        )
        neurons, heads = scores["layers.0.ffn"], scores["layers.1.attention"]
        assert (neurons[7], heads[1]) == (0, 0)
        assert ((neurons > 0).sum(), (heads > 0).sum()) == (47, 3)


def test_without_labels_scores_estimate_the_change_of_the_logits() -> None:
    checkpoint, one, copies = tiny_checkpoint((LayerShape(2, 4, 3),)), random_rows(1, labels=0), 2000
    width = int(one.offsets[1])
    same = replace(
        one,
        content=Tokens(np.tile(one.tokens.ids, copies), np.repeat(one.tokens.second, copies)),
        offsets=np.arange(copies + 1) * width,
        targets=np.repeat(one.targets, copies),
    )
    scores = score_units(checkpoint, same, TASK, examples=copies, seed=0)
    network, batch = checkpoint.network(), one.batch(np.array([0]))

    def answer(mask: torch.Tensor) -> torch.Tensor:
        hook = network.layers[0].ffn.down.register_forward_pre_hook(lambda module, given: (given[0] * mask,))
        logits = network(**batch.inputs)[0]
        hook.remove()
        return logits

    wanted = torch.autograd.functional.jacobian(answer, torch.ones(3)).square().sum(dim=0)
    np.testing.assert_allclose(scores["layers.0.ffn"] / copies, wanted.numpy(), rtol=0.15)


def test_emptied_sublayers_have_empty_scores() -> None:
    scores = score_units(
        tiny_checkpoint((LayerShape(0, 8, 4), LayerShape(2, 8, 0))), random_rows(5), TASK, examples=5, seed=0
    )
    assert [len(scores[f"layers.{index}.attention"]) for index in range(2)] == [0, 2]
    assert [len(scores[f"layers.{index}.ffn"]) for index in range(2)] == [4, 0]


def test_what_cannot_be_scored_is_refused() -> None:
    checkpoint = tiny_checkpoint()
    with pytest.raises(BadInput):
        score_units(quantize(checkpoint, forms_of(checkpoint)), random_rows(4), TASK, examples=4, seed=0)
    with pytest.raises(BadInput):
        score_units(checkpoint, random_rows(0), TASK, examples=4, seed=0)
