"""Tables in 4 and 2 bits, and the rounding that prepares for them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from models.kinds import Int8Form
from models.layers.packed import (
    FakeRoundedEmbedding,
    PackedEmbedding,
    TwoBitEmbedding,
    pack_rows,
    pack_rows_in_two_bits,
)
from models.layers.quantized import quantize_weight


def table_of(weight: torch.Tensor) -> PackedEmbedding:
    table = PackedEmbedding(*weight.shape)
    table.weight, table.weight_scale = pack_rows(weight)
    return table


@given(st.integers(0, 999), st.integers(1, 6), st.integers(1, 41))
def test_a_row_comes_back_within_half_a_step_or_clipped(seed: int, count: int, width: int) -> None:
    weight = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    table = table_of(weight)
    assert table.weight.dtype is torch.uint8
    assert table.weight.shape == (count, (width + 1) // 2)
    indices = torch.arange(count).flip(0)[None]
    found = table(indices)
    assert found.shape == (1, count, width)
    scale = table.weight_scale[:, None]
    levels = weight / scale
    inside = (levels > -8.5) & (levels < 7.5)
    error = (found[0].flip(0) - weight).abs()
    assert bool((error[inside] <= (scale.abs() * 0.5001).expand_as(error)[inside]).all())


def test_clipping_beats_the_plain_range() -> None:
    weight = torch.randn(200, 384, generator=torch.Generator().manual_seed(0))
    plain = weight.abs().amax(dim=1, keepdim=True) / 7
    before = (torch.round(weight / plain).clamp(-7, 7) * plain - weight).square().mean()
    after = (table_of(weight)(torch.arange(200)) - weight).square().mean()
    assert after < 0.75 * before
    assert after < 0.015  # of a variance of 1


def test_what_has_16_levels_is_kept_exactly() -> None:
    weight = torch.arange(-8, 8).float().repeat(3, 2) * torch.tensor([[1.0], [-0.25], [0.5]])
    torch.testing.assert_close(table_of(weight)(torch.arange(3)), weight, rtol=1e-6, atol=1e-6)


def test_a_row_of_zeros_stays_one() -> None:
    assert torch.equal(table_of(torch.zeros(2, 5))(torch.arange(2)), torch.zeros(2, 5))


def two_bit_table_of(weight: torch.Tensor) -> TwoBitEmbedding:
    table = TwoBitEmbedding(*weight.shape)
    table.weight, table.weight_scale = pack_rows_in_two_bits(weight)
    return table


@given(st.integers(0, 999), st.integers(1, 6), st.integers(1, 41))
def test_a_row_in_two_bits_comes_back_within_half_a_step_or_clipped(seed: int, count: int, width: int) -> None:
    weight = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    table = two_bit_table_of(weight)
    assert table.weight.dtype is torch.uint8
    assert table.weight.shape == (count, (width + 3) // 4)
    found = table(torch.arange(count)[None])[0]
    scale = table.weight_scale[:, None]
    levels = found / scale
    torch.testing.assert_close(levels, (levels - 0.5).round() + 0.5)
    assert float(levels.abs().max()) <= 1.5 + 1e-5
    inside = (weight / scale).abs() < 2
    error = (found - weight).abs()
    assert bool((error[inside] <= (scale.abs() * 0.5001).expand_as(error)[inside]).all())


def test_two_bits_are_as_good_as_four_levels_can_be() -> None:
    weight = torch.randn(200, 384, generator=torch.Generator().manual_seed(0))
    error = (two_bit_table_of(weight)(torch.arange(200)) - weight).square().mean()
    assert 0.10 < error < 0.125  # 0.1188 is the least for evenly spaced levels (Max 1960), fitted per row a bit less


def test_four_levels_are_kept_exactly() -> None:
    weight = torch.tensor([-1.5, -0.5, 0.5, 1.5]).repeat(3, 2) * torch.tensor([[1.0], [0.25], [2.0]])
    torch.testing.assert_close(two_bit_table_of(weight)(torch.arange(3)), weight, rtol=1e-6, atol=1e-6)


def test_a_row_of_zeros_is_finite_in_two_bits() -> None:
    assert bool(torch.isfinite(two_bit_table_of(torch.zeros(2, 5))(torch.arange(2))).all())


@pytest.mark.parametrize("form", [Int8Form.TABLE, Int8Form.TABLE4, Int8Form.TABLE2])
def test_what_is_rounded_in_training_is_near_what_is_kept(form: Int8Form) -> None:
    table = nn.Embedding(400, 64, _weight=drawn_rows(400, 64))
    fake = FakeRoundedEmbedding(table, form)
    rounded = fake(torch.arange(400).reshape(4, 100))
    assert rounded.shape == (4, 100, 64)
    kept = {
        Int8Form.TABLE: lambda: quantized_rows(table.weight),
        Int8Form.TABLE4: lambda: unpacked(PackedEmbedding(400, 64), *pack_rows(table.weight)),
        Int8Form.TABLE2: lambda: unpacked(TwoBitEmbedding(400, 64), *pack_rows_in_two_bits(table.weight)),
    }[form]()
    with torch.no_grad():
        best, ours = (float((values - table.weight).square().mean()) for values in (kept, rounded.reshape(400, 64)))
    assert best / 1.05 <= ours <= 1.5 * best  # a quicker scale is hardly better, and not much worse


def test_a_table_that_is_rounded_already_stays() -> None:
    kept = unpacked(TwoBitEmbedding(400, 64), *pack_rows_in_two_bits(drawn_rows(400, 64)))
    fake = FakeRoundedEmbedding(nn.Embedding(400, 64, _weight=kept.clone()), Int8Form.TABLE2)
    torch.testing.assert_close(fake(torch.arange(400)).detach(), kept, atol=1e-5, rtol=0)
    again = unpacked(TwoBitEmbedding(400, 64), *pack_rows_in_two_bits(kept))
    torch.testing.assert_close(again, kept, atol=1e-5, rtol=0)


def test_rounding_in_training_passes_gradients_on() -> None:
    table = nn.Embedding(10, 8, _weight=drawn_rows(10, 8))
    fake = FakeRoundedEmbedding(table, Int8Form.TABLE2)
    weights = torch.randn(3, 8, generator=torch.Generator().manual_seed(2))
    (fake(torch.tensor([1, 4, 1])) * weights).sum().backward()
    assert fake.weight is table.weight
    expected = torch.zeros(10, 8)
    expected[1], expected[4] = weights[0] + weights[2], weights[1]
    torch.testing.assert_close(table.weight.grad, expected)


def drawn_rows(rows: int, width: int) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(1))


def unpacked(table: PackedEmbedding | TwoBitEmbedding, weight: Tensor, scale: Tensor) -> Tensor:
    table.weight.copy_(weight)
    table.weight_scale.copy_(scale)
    return table(torch.arange(len(scale)))


def quantized_rows(weight: Tensor) -> Tensor:
    levels, scale = quantize_weight(weight)
    return levels.float() * scale[:, None]
