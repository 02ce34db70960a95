from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import random_rows, tiny_checkpoint
from support.networks import EVEN
from support.pruning import plan_of
from torch import Tensor, nn

from compress.pruning.plan import Plan
from compress.pruning.surgery import prune
from compress.quantization.schemes import forms_of, quantize
from models.checkpoint import Checkpoint
from models.errors import BadInput
from models.kinds import Norm
from models.shape import LayerShape, ModelShape, RelativeBias
from models.sublayers import sublayers_of

UNITS = {"heads": st.integers(0, 4), "ffn": st.integers(0, 12), "window": st.sampled_from([None, 1])}
LAYERS = st.lists(
    st.builds(LayerShape, head_size=st.sampled_from([1, 4, 8]), **UNITS)
    | st.builds(LayerShape, head_size=st.sampled_from([2, 8]), rotary=st.just(50.0), **UNITS)
    | st.builds(
        LayerShape, head_size=st.sampled_from([2, 8]), **{**UNITS, "window": st.just(1)}, global_tokens=st.just(1)
    )
    | st.builds(
        LayerShape,
        head_size=st.sampled_from([1, 8]),
        **{**UNITS, "window": st.none()},
        linear=st.just(True),
    ),
    min_size=1,
    max_size=3,
)
FORMS = st.fixed_dictionaries(
    {
        "pre_norm": st.booleans(),
        "norm": st.sampled_from(Norm),
        "relative": st.sampled_from([None, RelativeBias(8, 5)]),
        "embedding_size": st.sampled_from([None, 12]),
        "gated": st.booleans(),
    }
)


def logits(checkpoint: Checkpoint, *, masked: Plan | None = None) -> Tensor:
    """Return the logits of padded rows, with zeros where a plan removes a head or a neuron."""
    network, batch = checkpoint.network(), random_rows(6).batch(torch.arange(6).numpy())

    def zeroed(kept: tuple[int, ...], size: int) -> object:
        def hook(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
            units = given[0].unflatten(-1, (-1, size)).clone()
            units[..., [unit for unit in range(units.shape[-2]) if unit not in kept], :] = 0
            return (units.flatten(-2),)

        return hook

    if masked is not None:
        for one in sublayers_of(checkpoint.shape):
            reader = network.get_submodule(one.reader)
            reader.register_forward_pre_hook(zeroed(masked.kept[one.path], one.width))
    with torch.inference_mode():
        return network(**batch.inputs)


@st.composite
def plans(draw: st.DrawFn, shape: ModelShape) -> Plan:
    def some(size: int) -> tuple[int, ...]:
        return tuple(index for index in range(size) if draw(st.booleans()))

    return Plan({one.path: some(one.units) for one in sublayers_of(shape)})


@settings(max_examples=40, deadline=None)
@given(data=st.data(), layers=LAYERS, forms=FORMS)
def test_pruned_network_is_the_masked_network(
    data: st.DataObject, layers: list[LayerShape], forms: dict[str, Any]
) -> None:
    checkpoint = tiny_checkpoint(tuple(layers), **forms)
    plan = data.draw(plans(checkpoint.shape))
    pruned = prune(checkpoint, plan)
    assert [(layer.heads, layer.ffn) for layer in pruned.shape.layers] == [
        (len(plan.kept[f"layers.{index}.attention"]), len(plan.kept[f"layers.{index}.ffn"]))
        for index in range(len(layers))
    ]
    torch.testing.assert_close(logits(pruned), logits(checkpoint, masked=plan), atol=1e-5, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_two_steps_are_one(data: st.DataObject) -> None:
    checkpoint = tiny_checkpoint(relative=RelativeBias())
    first = data.draw(plans(checkpoint.shape))
    halfway = prune(checkpoint, first)
    second = data.draw(plans(halfway.shape))
    twice, once = prune(halfway, second), prune(checkpoint, first.then(second))
    assert twice.shape == once.shape
    assert set(twice.weights) == set(once.weights)
    for name, weight in once.weights.items():
        assert torch.equal(twice.weights[name], weight), name


def test_everything_kept_is_the_same() -> None:
    checkpoint = tiny_checkpoint()
    same = prune(checkpoint, Plan.everything(checkpoint.shape))
    assert same.shape == checkpoint.shape
    assert all(torch.equal(same.weights[name], weight) for name, weight in checkpoint.weights.items())


def test_the_parent_is_not_changed() -> None:
    checkpoint = tiny_checkpoint()
    before = {name: weight.clone() for name, weight in checkpoint.weights.items()}
    prune(checkpoint, plan_of(((1,), ()), ((3, 5), ())))
    assert all(torch.equal(before[name], weight) for name, weight in checkpoint.weights.items())


def test_saves_and_loads(tmp_path: object) -> None:
    pruned = prune(tiny_checkpoint(), plan_of(((1, 3), ()), ((3, 5, 7), (0,))))
    pruned.save(tmp_path)  # type: ignore[arg-type]
    loaded = Checkpoint.load(tmp_path)  # type: ignore[arg-type]
    assert loaded.shape == pruned.shape
    torch.testing.assert_close(logits(loaded), logits(pruned), atol=0, rtol=0)


@pytest.mark.parametrize(
    "plan",
    [
        plan_of(((0,),), ((0,),)),
        plan_of(((0, 4), (0,)), ((0,), (0,))),
        plan_of(((1, 0), (0,)), ((0,), (0,))),
        plan_of(((0,), (0,)), ((0, 0), (0,))),
        plan_of(((0,), (0,)), ((-1,), (0,))),
    ],
)
def test_a_plan_of_another_model_is_refused(plan: Plan) -> None:
    with pytest.raises(BadInput):
        prune(tiny_checkpoint(EVEN), plan)


def test_a_quantized_model_is_refused() -> None:
    checkpoint = tiny_checkpoint()
    with pytest.raises(BadInput, match="quantized"):
        prune(quantize(checkpoint, forms_of(checkpoint)), Plan.everything(checkpoint.shape))
