"""What is left of a sublayer takes over for what was removed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.examples import random_rows, tiny_checkpoint
from torch import Tensor

from compress.curvature import curvature
from compress.pruning.compensation import compensated
from compress.pruning.plan import Plan
from compress.pruning.surgery import prune
from models.checkpoint import Checkpoint
from models.encoded import Encoded
from models.evaluation import evaluate_logits
from models.shape import LayerShape
from models.sublayers import sublayers_of

LAYERS = (LayerShape(2, 8, 12), LayerShape(2, 8, 12))


def without(checkpoint: Checkpoint, layer: int, *, heads: tuple[int, ...] = (), neurons: tuple[int, ...] = ()) -> Plan:
    """Return the plan that removes these units of one layer."""
    gone = {f"layers.{layer}.attention": heads, f"layers.{layer}.ffn": neurons}
    whole = Plan.everything(checkpoint.shape).kept
    return Plan(
        {path: tuple(unit for unit in units if unit not in gone.get(path, ())) for path, units in whole.items()}
    )


def projected(model: Checkpoint, data: Encoded, *, examples: int, seed: int) -> dict[str, Tensor]:
    """Return the curvature at the output projections."""
    paths = [sublayer.reader for sublayer in sublayers_of(model.shape)]
    return curvature(model, paths, data, examples=examples, seed=seed)


def changed(checkpoint: Checkpoint, **weights: Tensor) -> Checkpoint:
    """Return the checkpoint with some weights replaced; dots are written as double underscores."""
    named = {name.replace("__", "."): value for name, value in weights.items()}
    return replace(checkpoint, weights={**checkpoint.weights, **named})


def test_a_removed_twin_is_replaced_exactly() -> None:
    model, data = tiny_checkpoint(LAYERS), random_rows(200)
    up, bias = model.weights["layers.0.ffn.up.weight"].clone(), model.weights["layers.0.ffn.up.bias"].clone()
    up[3], bias[3] = up[7], bias[7]
    model = changed(model, layers__0__ffn__up__weight=up, layers__0__ffn__up__bias=bias)
    plan = without(model, 0, neurons=(3,))
    cut = prune(model, plan)
    mended = compensated(model, plan, cut, projected(model, data, examples=200, seed=0))
    wanted = evaluate_logits(model.network(), data)
    errors = [float(np.abs(evaluate_logits(one.network(), data) - wanted).max()) for one in (cut, mended)]
    # The damping keeps it from being exact to the last digit.
    assert errors[1] < 0.1 * errors[0]


def test_the_bias_takes_over_a_constant() -> None:
    model, data = tiny_checkpoint(LAYERS), random_rows(50)
    up = torch.zeros_like(model.weights["layers.1.ffn.up.weight"])
    model = changed(model, layers__1__ffn__up__weight=up)  # every neuron is constant
    plan = without(model, 1, neurons=tuple(range(12)))
    mended = compensated(model, plan, prune(model, plan), projected(model, data, examples=50, seed=0))
    assert mended.shape.layers[1].ffn == 0
    np.testing.assert_allclose(
        evaluate_logits(mended.network(), data), evaluate_logits(model.network(), data), atol=1e-4
    )


@pytest.mark.parametrize(("heads", "neurons"), [((1,), ()), ((), (0, 4, 5, 9)), ((0, 1), (2,))])
def test_the_answers_come_nearer(heads: tuple[int, ...], neurons: tuple[int, ...]) -> None:
    model, data = tiny_checkpoint(LAYERS), random_rows(400)
    plan = without(model, 0, heads=heads, neurons=neurons)
    cut = prune(model, plan)
    mended = compensated(model, plan, cut, projected(model, data, examples=400, seed=0))
    assert mended.shape == cut.shape
    wanted = evaluate_logits(model.network(), data)
    errors = [float(np.square(evaluate_logits(one.network(), data) - wanted).mean()) for one in (cut, mended)]
    assert errors[1] < 0.9 * errors[0]


def test_nothing_removed_changes_nothing() -> None:
    model = tiny_checkpoint(LAYERS)
    plan = Plan.everything(model.shape)
    same = compensated(model, plan, model, projected(model, random_rows(8), examples=8, seed=0))
    assert all(torch.equal(same.weights[name], value) for name, value in model.weights.items())


def test_tokens_weigh_as_much_as_the_answer_depends_on_them() -> None:
    model, data = tiny_checkpoint(LAYERS), random_rows(1)
    paths = ("layers.0.attention.query", "layers.0.attention.output", "layers.0.ffn.down", "layers.1.ffn.up")
    known = curvature(model, paths, data, examples=1, seed=5)
    network, batch = model.network(), data.batch(np.arange(1))
    drawn = torch.randn((1, len(model.shape.labels)), generator=torch.Generator().manual_seed(5))
    for path in paths:
        module = network.get_submodule(path)
        shift = torch.zeros(1, requires_grad=True)
        read: list[Tensor] = []

        def moved(_: object, given: tuple[Tensor, ...], written: Tensor) -> Tensor:
            nonlocal shift
            read.append(given[0].detach())  # noqa: B023
            shift = torch.zeros_like(written, requires_grad=True)
            return written + shift

        hook = module.register_forward_hook(moved)
        logits = network(**batch.inputs)
        hook.remove()
        (slope,) = torch.autograd.grad((logits * drawn).sum(), shift)
        rows = torch.cat([read[0][0], torch.ones(read[0].shape[1], 1)], dim=1).double()
        wanted = (rows * slope[0].double().square().sum(dim=1, keepdim=True)).t() @ rows
        torch.testing.assert_close(known[path], wanted, rtol=1e-4, atol=1e-9)


def test_an_emptied_sublayer_stays_empty() -> None:
    model = tiny_checkpoint((LayerShape(0, 8, 0), LayerShape(2, 8, 12)))
    plan = without(model, 1, neurons=(0,))
    known = projected(model, random_rows(20), examples=20, seed=0)
    assert known["layers.0.attention.output"].shape == (1, 1)
    mended = compensated(model, plan, prune(model, plan), known)
    assert mended.shape.layers[0] == LayerShape(0, 8, 0)
    assert torch.equal(mended.weights["layers.0.ffn.down.bias"], model.weights["layers.0.ffn.down.bias"])
