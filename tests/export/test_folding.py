"""What leaves no node in the graph: norms that only scale and shift, and sublayers of which nothing is left."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from support.networks import EVEN, PRUNED, quantized_network, random_network, tiny_shape

from export import parity
from export.folding import folded
from export.lower import lower
from export.target import CPU, TARGETS, Target
from models.kinds import Int8Form, Norm
from models.network import Network
from models.shape import LayerShape, ModelShape

FORMS = [None, Int8Form.DYNAMIC, Int8Form.STATIC]


def drawn(shape: ModelShape, form: Int8Form | None) -> Network:
    """Return a network whose norms turn some channels round, in int8 where a form is given."""
    network = random_network(shape)
    for name, weight in network.named_parameters():
        if "norm.weight" in name:
            weight.data[::3] *= -0.7
    return network if form is None else quantized_network(network, form)


def calls(*, padded: bool = False) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    shapes = [(3, 12)] if padded else [(1, 1), (1, 9), (1, 24)]
    given = []
    for rows, time in shapes:
        mask = np.ones((rows, time), dtype=np.int64)
        mask[1:, time // 2 :] = 0
        kinds = random.integers(0, 2, (rows, time))
        given.append(
            {"input_ids": random.integers(0, 50, (rows, time)), "attention_mask": mask, "token_type_ids": kinds}
        )
    return given


def in_layers(model: onnx.ModelProto) -> Counter[str]:
    """Return how often each operator stands in the layers, but in attention, in FFNs and to pick the first token."""
    inner = ("/attention/", "/ffn/")
    nodes = [node for node in model.graph.node if node.output[0].startswith("layers.") and node.op_type != "Gather"]
    return Counter(node.op_type for node in nodes if not any(part in node.output[0] for part in inner))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_norm_that_scales_and_shifts_is_one_product(form: Int8Form | None, target: Target) -> None:
    network = drawn(tiny_shape(norm=Norm.ELEMENTWISE), form)
    model = lower(network, target)
    assert in_layers(model) == {"Mul": 4, "Sum": 4}
    whole = Counter(node.op_type for node in model.graph.node)
    assert whole["LayerNormalization"] == 0
    found = parity.compare(network, model.SerializeToString(), calls())
    found.check(parity.FLOAT_BOUND if form is None else parity.INT8_BOUND)
    if form is None:
        parity.compare(network, model.SerializeToString(), calls(padded=True)).check(parity.FLOAT_BOUND)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("norm", [Norm.LAYER, Norm.ELEMENTWISE])
def test_a_sublayer_without_units_leaves_its_norm_alone(norm: Norm, form: Int8Form | None) -> None:
    network = drawn(tiny_shape(PRUNED, norm=norm), form)
    model = lower(network, CPU)
    empty = [
        f"layers.{index}/{name}/"
        for index, layer in enumerate(PRUNED)
        for name, units in (("attention", layer.heads), ("ffn", layer.ffn))
        if not units
    ]
    assert len(empty) == 4
    names = [name for node in model.graph.node for name in node.output]
    names += [weight.name for weight in model.graph.initializer]
    assert not [name for name in names if name.startswith(tuple(empty))]
    left = 2 * len(PRUNED) - len(empty)
    # Each norm stays; only sublayers of which something is left are added to what is kept.
    norms = {"LayerNormalization": 2 * len(PRUNED)} if norm is Norm.LAYER else {"Mul": 2 * len(PRUNED), "Add": 4}
    counted = in_layers(model)
    assert counted == {"Sum": left, **norms}, counted
    found = parity.compare(network, model.SerializeToString(), calls())
    found.check(parity.FLOAT_BOUND if form is None else parity.INT8_BOUND)


def test_before_a_norm_an_empty_sublayer_goes_into_the_last_writer() -> None:
    shape = tiny_shape((EVEN[0], LayerShape(0, 8, 0), LayerShape(2, 8, 0)), pre_norm=True)
    network = drawn(shape, None)
    model = lower(network, CPU)
    assert in_layers(model) == {"LayerNormalization": 3, "Sum": 3}
    parity.compare(network, model.SerializeToString(), calls(padded=True)).check(parity.FLOAT_BOUND)


def test_what_has_no_bias_keeps_the_sum() -> None:
    network = drawn(tiny_shape((LayerShape(0, 8, 5),), norm=Norm.RMS), None)
    assert in_layers(lower(network, CPU))["Sum"] == 2


@pytest.mark.parametrize("form", FORMS)
def test_the_given_network_is_not_changed(form: Int8Form | None) -> None:
    network = drawn(tiny_shape(PRUNED, norm=Norm.ELEMENTWISE), form)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    changed = folded(network).state_dict()
    assert all(torch.equal(before[name], weight) for name, weight in network.state_dict().items())
    words = "embeddings.word.weight"
    assert changed[words].data_ptr() == network.state_dict()[words].data_ptr()
    assert any(not torch.equal(changed[name], weight) for name, weight in before.items() if name in changed)


def test_a_network_with_nothing_to_save_shares_every_weight() -> None:
    network = random_network(tiny_shape())
    given = network.state_dict()
    assert all(weight.data_ptr() == given[name].data_ptr() for name, weight in folded(network).state_dict().items())
