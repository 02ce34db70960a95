"""The network against a plain reference, in every form that a shape can state."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.hugging_face import tokens
from support.networks import EVEN, PRUNED, TURNED, WINDOWS, quantized_network, random_network, tiny_shape
from support.strategies import model_shapes
from torch import Tensor

from models.kinds import Activation, Int8Form, Norm, Positions, Reads
from models.layers.attention import padding_mask
from models.network import Network, initialize
from models.shape import HeadShape, LayerShape, ModelShape, RelativeBias

FORMS = [
    pytest.param(
        norm, pre_norm, activation, positions, id=f"{norm.value}-{pre_norm}-{activation.value}-{positions.value}"
    )
    for norm in Norm
    for pre_norm in (False, True)
    for activation, positions in (
        (Activation.GELU, Positions.LEARNED),
        (Activation.GELU_TANH, Positions.SINUSOIDAL),
        (Activation.RELU, Positions.SINUSOIDAL),
        (Activation.SILU, Positions.LEARNED),
    )
]


def reference(network: Network, batch: dict[str, Tensor]) -> list[Tensor]:
    """Return every hidden state by the textbook: norm after the sum, or before the sublayer."""
    mask = padding_mask(batch["attention_mask"])
    hidden = network.embeddings(batch["input_ids"], batch["token_type_ids"])
    states = [hidden]
    for block in network.layers:
        if network.shape.pre_norm:
            hidden = hidden + block.attention(block.attention_norm(hidden), mask)
            hidden = hidden + block.ffn(block.ffn_norm(hidden))
        else:
            hidden = block.attention_norm(hidden + block.attention(hidden, mask))
            hidden = block.ffn_norm(hidden + block.ffn(hidden))
        states.append(hidden)
    if network.final_norm is not None:
        states[-1] = network.final_norm(states[-1])
    return states


@pytest.mark.parametrize(("norm", "pre_norm", "activation", "positions"), FORMS)
@pytest.mark.parametrize("layers", [EVEN, PRUNED], ids=["even", "pruned"])
def test_every_form_is_the_textbook_s(
    norm: Norm, activation: Activation, positions: Positions, layers: tuple[LayerShape, ...], *, pre_norm: bool
) -> None:
    shape = tiny_shape(layers, norm=norm, pre_norm=pre_norm, activation=activation, positions=positions)
    network = random_network(shape)
    batch = tokens(types=2, padded=True)
    with torch.no_grad():
        expected = reference(network, batch)
        found = network.features(**batch)
        assert len(found.hidden) == len(layers) + 1
        for ours, theirs in zip(found.hidden, expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        logits = network.head(expected[-1])  # type: ignore[misc]
        torch.testing.assert_close(found.logits, logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(network(**batch), logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [tiny_shape(), tiny_shape(PRUNED, pre_norm=True), tiny_shape(PRUNED, head=None)])
def test_a_full_mask_is_no_mask(shape: ModelShape) -> None:
    network, batch = random_network(shape), tokens(types=2)
    with torch.no_grad():
        without = network(batch["input_ids"], None, batch["token_type_ids"])
        assert torch.equal(network(**batch), without)


@given(st.integers(1, 12), st.integers(0, 9), st.integers(0, 49), st.booleans(), st.none() | st.just(RelativeBias()))
def test_padding_changes_no_logit(
    time: int, padding: int, filler: int, pre_norm: bool, relative: RelativeBias | None
) -> None:
    network = random_network(tiny_shape(PRUNED, pre_norm=pre_norm, relative=relative))
    ids = torch.randint(0, 50, (2, time), generator=torch.Generator().manual_seed(time))
    padded = torch.cat([ids, torch.full((2, padding), filler)], dim=1)
    mask = torch.cat([torch.ones(2, time, dtype=torch.int64), torch.zeros(2, padding, dtype=torch.int64)], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(network(padded, mask), network(ids), atol=1e-5, rtol=1e-5)


@given(model_shapes())
def test_a_network_of_any_shape_runs(shape: ModelShape) -> None:
    network = Network(shape).eval()
    ids = torch.zeros(2, 5, dtype=torch.int64)
    with torch.no_grad():
        found = network(ids, torch.tensor([[1] * 5, [1] * 2 + [0] * 3]))
    several = shape.head is None or shape.answers_tokens
    assert found.shape == ((2, 5, shape.outputs) if several else (2, shape.outputs))
    assert bool(torch.isfinite(found).all())


@given(st.integers(1, 12), st.integers(0, 9), st.sampled_from([Reads.FIRST, Reads.MEAN]))
def test_padding_behind_a_window_changes_no_logit(time: int, padding: int, reads: Reads) -> None:
    network = random_network(tiny_shape(WINDOWS, **TURNED, head=HeadShape(("a", "b"), reads=reads, normed=True)))
    ids = torch.randint(0, 50, (2, time), generator=torch.Generator().manual_seed(time))
    padded = torch.cat([ids, torch.zeros(2, padding, dtype=torch.int64)], dim=1)
    mask = torch.cat([torch.ones(2, time, dtype=torch.int64), torch.zeros(2, padding, dtype=torch.int64)], dim=1)
    with torch.no_grad():
        found = network(padded, mask)
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found, network(ids), atol=1e-5, rtol=1e-5)


def test_an_empty_layer_changes_nothing_but_its_biases() -> None:
    shape = tiny_shape((LayerShape(0, 8, 0),), pre_norm=True, head=None)
    network = random_network(shape)
    block, batch = network.layers[0], tokens(types=2)
    with torch.no_grad():
        first, last = network.features(**batch).hidden
        total = first + block.attention.output.bias + block.ffn.down.bias
        torch.testing.assert_close(last, network.final_norm(total))  # type: ignore[misc]


def test_building_empty_layers_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Network(tiny_shape(PRUNED))


def test_weights_are_drawn_as_told_and_biases_are_clear() -> None:
    torch.manual_seed(0)
    network = Network(tiny_shape(vocab_size=2000, initializer_range=0.05))
    assert float(network.embeddings.word.weight.detach().std()) == pytest.approx(0.05, rel=0.05)
    assert float(network.layers[0].ffn.up.weight.detach().std()) == pytest.approx(0.05, rel=0.1)
    assert not network.layers[0].ffn.up.bias.any()
    assert bool((network.layers[0].ffn_norm.weight == 1).all())
    initialize(network, 0.0)
    assert not network.layers[0].ffn.up.weight.any()


@pytest.mark.parametrize("form", [Int8Form.DYNAMIC, Int8Form.STATIC])
def test_int8_stays_near_float(form: Int8Form) -> None:
    network = random_network(tiny_shape(PRUNED))
    quantized = quantized_network(network, form)
    batch = tokens(types=2)
    with torch.no_grad():
        error = (quantized.features(**batch).logits - network.features(**batch).logits).abs().max()
    assert 0 < float(error) < 0.5


def test_dropout_is_drawn_only_in_training() -> None:
    network, batch = random_network(tiny_shape()), tokens(types=2)
    network.train()
    assert not torch.equal(network(**batch), network(**batch))
    network.eval()
    assert torch.equal(network(**batch), network(**batch))


def test_gradients_reach_every_weight() -> None:
    network = random_network(tiny_shape(EVEN, pre_norm=True)).train()
    network(**tokens(types=2)).square().sum().backward()
    idle = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    # A key's bias shifts all scores of a query alike, which softmax cancels.
    assert [name for name in idle if not name.endswith("key.bias")] == []
