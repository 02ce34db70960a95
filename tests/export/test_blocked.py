"""The arithmetic of models.layers.blocked is that of ONNX Runtime's operator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import pad

from export.emit import Emit
from export.lowering import GROUPS, LOWERINGS
from export.lowering.blocked import blocked_words
from export.session import open_session
from export.target import CPU, MOBILE, WEB, Target
from export.values import Port, Value, build
from models.errors import Unsupported
from models.kinds import BLOCKS, Blocks, Int8Form
from models.layers.blocked import BlockedEmbedding, BlockedLinear, unpack_blocks

WIDTHS = st.integers(1, 300)
SIZES = st.sampled_from(sorted(BLOCKS.values()))
FINE = BLOCKS[Int8Form.BLOCKS32]
EMIT = Emit(CPU, LOWERINGS, GROUPS, "part")


def fill(module: BlockedLinear | BlockedEmbedding, seed: int) -> torch.Generator:
    """Draw levels, and scales of both signs."""
    generator = torch.Generator().manual_seed(seed)
    module.weight.random_(generator=generator)
    module.weight_scale.copy_(torch.randn(module.weight_scale.shape, generator=generator) * 0.05)
    return generator


def run(given: Value, outputs: list[Value], value: Tensor) -> list[np.ndarray]:
    named = {Port(f"y{at}", "float32", ("batch", "time", f"width{at}")): output for at, output in enumerate(outputs)}
    model = build([given], named, opset=CPU.opset, name="blocks")
    return list(open_session(model.SerializeToString(), threads=1).run(None, {"x": value.numpy()}))


def assert_same(found: np.ndarray, expected: Tensor, hidden: Tensor, weights: Tensor, blocks: Blocks) -> None:
    """Assert that products of states are those expected to float rounding. A state half way between two levels may be
    rounded to either, as what it is divided by is rounded too.
    """
    filled = pad(hidden, (0, -hidden.shape[-1] % blocks.inputs)).unflatten(-1, (-1, blocks.inputs))
    step = filled.abs().amax(dim=-1, keepdim=True) / 127
    levels = torch.nan_to_num(filled / step)
    between = ((levels - levels.floor() - 0.5).abs() < 1e-4) * step
    slack = between.flatten(-2)[..., : hidden.shape[-1]] @ weights.abs().t()
    allowed = slack + 1e-4 * expected.abs() + 1e-5 * (expected.abs().max() + 1)
    assert bool(((torch.from_numpy(found) - expected).abs() <= allowed).all())


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 6), WIDTHS, st.integers(1, 40), SIZES, st.booleans()
)
def test_a_layer_is_exact_to_float_rounding(
    seed: int, rows: int, time: int, width: int, outer: int, blocks: Blocks, biased: bool
) -> None:
    layer = BlockedLinear(width, outer, blocks=blocks)
    generator = fill(layer, seed)
    if biased:
        layer.bias.copy_(torch.randn(outer, generator=generator))
    hidden = torch.randn(rows, time, width, generator=generator) * 3
    hidden[0, 0] = 0
    x = Value(Port("x", "float32", ("batch", "time", width)))
    (output,) = GROUPS[BlockedLinear]([layer], [EMIT], x)
    (found,) = run(x, [output], hidden)
    weights = unpack_blocks(layer.weight, layer.weight_scale, width, blocks.bits)
    assert_same(found, layer(hidden), hidden, weights, blocks)


def test_layers_that_read_the_same_are_one_product() -> None:
    layers = [BlockedLinear(70, outer, blocks=FINE) for outer in (24, 8, 9)]
    for seed, layer in enumerate(layers):
        fill(layer, seed)
    layers[1].bias.fill_(2.0)
    hidden = torch.randn(2, 3, 70, generator=torch.Generator().manual_seed(0))
    x = Value(Port("x", "float32", ("batch", "time", 70)))
    outputs = list(GROUPS[BlockedLinear](layers, [EMIT.at(name) for name in "abc"], x))
    assert len({id(output.origin) for output in outputs}) == 1
    for found, layer in zip(run(x, outputs, hidden), layers, strict=True):
        np.testing.assert_allclose(found, layer(hidden).numpy(), rtol=1e-4, atol=1e-4)


def test_layers_of_other_blocks_are_products_of_their_own() -> None:
    layers = [BlockedLinear(70, 5, blocks=blocks) for blocks in BLOCKS.values()]
    for seed, layer in enumerate(layers):
        fill(layer, seed)
    hidden = torch.randn(1, 2, 70, generator=torch.Generator().manual_seed(1))
    x = Value(Port("x", "float32", ("batch", "time", 70)))
    outputs = list(GROUPS[BlockedLinear](layers, [EMIT.at(name) for name in "abcd"], x))
    for found, layer in zip(run(x, outputs, hidden), layers, strict=True):
        np.testing.assert_allclose(found, layer(hidden).numpy(), rtol=1e-4, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), WIDTHS, SIZES)
def test_a_table_gives_its_rows_and_is_multiplied_with(seed: int, words: int, width: int, blocks: Blocks) -> None:
    table = BlockedEmbedding(words, width, blocks=blocks)
    generator = fill(table, seed)
    bias = torch.randn(words, generator=generator)
    ids = torch.randint(0, words, (2, 3), generator=generator)
    given_ids = Value(Port("x", "int64", ("batch", "time")))
    rows = LOWERINGS[BlockedEmbedding](table, EMIT, given_ids)
    assert isinstance(rows, Value)
    (found,) = run(given_ids, [rows], ids)
    np.testing.assert_array_equal(found, table(ids).numpy())
    states = torch.randn(2, 3, width, generator=generator)
    x = Value(Port("x", "float32", ("batch", "time", width)))
    (logits,) = run(x, [blocked_words(table, EMIT, x, bias)], states)
    weights = unpack_blocks(table.weight, table.weight_scale, width, blocks.bits)
    assert_same(logits, table.products(states) + bias, states, weights, blocks)


def test_what_is_too_small_for_a_scale_is_zero() -> None:
    layer = BlockedLinear(40, 3, blocks=FINE)
    fill(layer, 0)
    hidden = torch.full((1, 1, 40), 1e-40)
    x = Value(Port("x", "float32", ("batch", "time", 40)))
    (found,) = run(x, [GROUPS[BlockedLinear]([layer], [EMIT], x)[0]], hidden)
    np.testing.assert_array_equal(found, layer(hidden).numpy())


@pytest.mark.parametrize("target", [MOBILE, WEB], ids=["mobile", "web"])
def test_a_target_that_would_unpack_them_in_every_call_is_refused(target: Target) -> None:
    x = Value(Port("x", "float32", ("batch", "time", 40)))
    emit = Emit(target, LOWERINGS, GROUPS, "layers.0.ffn.up")
    with pytest.raises(
        Unsupported, match=rf"layers\.0\.ffn\.up: the target {target.name} multiplies no weights.*int4 or int8"
    ):
        GROUPS[BlockedLinear]([BlockedLinear(40, 3, blocks=FINE)], [emit], x)
