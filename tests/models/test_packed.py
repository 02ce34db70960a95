"""Tables in 4 bits."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from models.layers.packed import PackedEmbedding, TwoBitEmbedding, pack_rows, pack_rows_in_two_bits


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
