"""Int8 arithmetic against plain whole-number sums (against ONNX Runtime: tests/export/test_quantized.py)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from models.kinds import Int8Form
from models.layers.quantized import (
    REDUCED_LIMIT,
    WEIGHT_LIMIT,
    FakeQuantizedLinear,
    QuantizedEmbedding,
    QuantizedLinear,
    dynamic_range,
    integer_matmul,
    quantize_activation,
    quantize_weight,
)

rows = st.integers(1, 8)
widths = st.integers(1, 40)
seeds = st.integers(0, 2**32 - 1)
floats = st.floats(-100, 100, width=32, allow_subnormal=False)


@given(st.data(), rows, widths)
def test_a_quantized_weight_is_within_half_a_scale(data: st.DataObject, out: int, width: int) -> None:
    weight = torch.from_numpy(data.draw(arrays(np.float32, (out, width), elements=floats)))
    quantized, scale = quantize_weight(weight)
    assert quantized.dtype == torch.int8
    assert scale.shape == (out,)
    assert int(quantized.min()) >= -127
    error = (quantized.double() * scale.double()[:, None] - weight.double()).abs()
    assert bool((error <= scale.double()[:, None] * (0.5 + 1e-5)).all())


def test_the_largest_weight_of_a_row_is_kept_and_zeros_stay_zero() -> None:
    weight = torch.tensor([[0.0, 0.0], [2.0, -4.0], [127.0, 1.0]])
    quantized, scale = quantize_weight(weight)
    assert quantized.tolist() == [[0, 0], [64, -127], [127, 1]]
    torch.testing.assert_close(scale, torch.tensor([1.0, 4 / 127, 1.0]))


@given(seeds, rows, widths, rows, st.integers(0, 255))
def test_integer_products_are_exact(seed: int, count: int, width: int, out: int, zero: int) -> None:
    random = np.random.default_rng(seed)
    levels = random.integers(0, 256, (count, width))
    weight = random.integers(-127, 128, (out, width)).astype(np.int8)
    found = integer_matmul(torch.from_numpy(levels).float(), torch.tensor(float(zero)), torch.from_numpy(weight))
    assert found.dtype == torch.int32
    np.testing.assert_array_equal(found.numpy(), (levels - zero) @ weight.astype(np.int64).T)


def in_16_bits(levels: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the products (rows, out) as x86 without VNNI sums them: two neighbours at a time, in saturating int16."""
    pairs = levels[:, None, :].astype(np.int64) * weight.astype(np.int64)
    pairs = pairs.reshape(*pairs.shape[:2], -1, 2).sum(axis=-1)
    return np.clip(pairs, -(2**15), 2**15 - 1).sum(axis=-1)


@pytest.mark.parametrize(("limit", "fits"), [(REDUCED_LIMIT, True), (WEIGHT_LIMIT, False)])
def test_weights_in_7_bits_have_room_in_16(limit: int, fits: bool) -> None:
    weight, scale = quantize_weight(torch.tensor([[3.0, 3.0, -3.0, -3.0], [1.0, -2.0, 2.0, 0.5]]), limit=limit)
    assert int(weight.abs().max()) == limit
    torch.testing.assert_close(scale, torch.tensor([3.0, 2.0]) / limit)
    levels = np.array([[255, 255, 255, 255], [255, 0, 255, 255], [3, 200, 17, 99]])
    exact = levels @ weight.numpy().astype(np.int64).T
    assert np.array_equal(in_16_bits(levels, weight.numpy()), exact) == fits
    assert (2 * 255 * limit < 2**15) == fits


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("sign", [-127, 127])
def test_the_largest_sums_do_not_overflow(level: int, sign: int) -> None:
    weight = torch.full((2, 4096), sign, dtype=torch.int8)
    found = integer_matmul(torch.full((3, 4096), float(level)), torch.tensor(float(255 - level)), weight)
    assert found.tolist() == [[(2 * level - 255) * sign * 4096] * 2] * 3


@given(seeds, st.integers(1, 4), st.integers(1, 5), widths)
def test_examples_do_not_see_one_another(seed: int, batch: int, time: int, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(batch, time, width, generator=generator) * torch.rand(batch, 1, 1, generator=generator) * 9
    layer = QuantizedLinear(width, 3, form=Int8Form.DYNAMIC)
    layer.weight, layer.weight_scale = quantize_weight(torch.randn(3, width, generator=generator))
    together = layer(hidden)
    for row in range(batch):
        assert torch.equal(layer(hidden[row : row + 1])[0], together[row])


@given(st.data(), rows, widths)
def test_levels_lie_in_a_byte_and_zero_is_exact(data: st.DataObject, count: int, width: int) -> None:
    hidden = torch.from_numpy(data.draw(arrays(np.float32, (1, count, width), elements=floats)))
    scale, zero = dynamic_range(hidden)
    levels = quantize_activation(hidden, scale, zero)
    assert 0 <= float(levels.min()) <= float(levels.max()) <= 255
    assert torch.equal(levels, levels.round())
    back = (levels - zero) * scale
    assert bool((back[hidden == 0] == 0).all())
    assert bool(((back - hidden).abs() <= scale * 1.001).all())


@pytest.mark.parametrize("form", [Int8Form.DYNAMIC, Int8Form.STATIC])
def test_a_quantized_layer_is_close_to_the_float_one(form: Int8Form) -> None:
    torch.manual_seed(0)
    linear, hidden = nn.Linear(64, 16), torch.randn(2, 5, 64)
    layer = QuantizedLinear(64, 16, form=form)
    layer.weight, layer.weight_scale = quantize_weight(linear.weight)
    layer.bias = linear.bias.detach()
    if form is Int8Form.STATIC:
        scale, zero = dynamic_range(hidden.reshape(1, -1))
        layer.input_scale, layer.input_zero_point = scale.reshape(()), zero.reshape(()).to(torch.uint8)
    error = (layer(hidden) - linear(hidden)).detach().abs().max()
    assert 0 < float(error) < 0.05
    assert set(layer.state_dict()) == {"weight", "weight_scale", "bias"} | (
        {"input_scale", "input_zero_point"} if form is Int8Form.STATIC else set()
    )


def test_a_static_range_cuts_off() -> None:
    layer = QuantizedLinear(1, 1, form=Int8Form.STATIC)
    layer.weight = torch.ones(1, 1, dtype=torch.int8)
    layer.input_scale, layer.input_zero_point = torch.tensor(0.5), torch.tensor(128, dtype=torch.uint8)
    found = layer(torch.tensor([[[1000.0]], [[-1000.0]], [[0.75]], [[1.25]]]))
    # Half to even: 0.75 / 0.5 = 1.5 is 2 levels, and 1.25 / 0.5 = 2.5 is 2 levels.
    assert found.flatten().tolist() == [63.5, -64.0, 1.0, 1.0]


def test_training_rounds_as_inference_does_and_passes_the_gradient() -> None:
    torch.manual_seed(0)
    linear, hidden = nn.Linear(32, 8), torch.randn(1, 6, 32, requires_grad=True)
    layer = QuantizedLinear(32, 8, form=Int8Form.DYNAMIC)
    layer.weight, layer.weight_scale = quantize_weight(linear.weight)
    layer.bias = linear.bias.detach()
    fake = FakeQuantizedLinear(linear)
    torch.testing.assert_close(fake(hidden), layer(hidden), atol=1e-5, rtol=1e-5)
    fake(hidden).sum().backward()
    assert linear.weight.grad is not None
    assert hidden.grad is not None
    torch.testing.assert_close(hidden.grad, linear.weight.sum(0).expand_as(hidden), atol=0.05, rtol=0.05)


@given(seeds, rows, widths)
def test_a_quantized_table_is_looked_up_row_by_row(seed: int, count: int, width: int) -> None:
    weight = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    table = QuantizedEmbedding(count, width)
    table.weight, table.weight_scale = quantize_weight(weight)
    indices = torch.arange(count).flip(0)[None]
    expected = (table.weight.float() * table.weight_scale[:, None]).flip(0)[None]
    assert torch.equal(table(indices), expected)
    assert float((table(indices)[0].flip(0) - weight).abs().max()) <= float(table.weight_scale.max()) * 0.501
