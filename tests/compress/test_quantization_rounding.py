"""Rounding to 4 bits against the definition: what it does to the outputs that the curvature weighs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compress.quantization import rounding
from compress.quantization.rounding import round_to_four_bits
from models.layers.packed import four_bit_levels, four_bit_scale


def inputs(seed: int, rows: int, features: int) -> Tensor:
    """Return correlated inputs with an appended 1, (rows, features + 1), as a layer reads them."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(rows, features, generator=generator) @ torch.randn(features, features, generator=generator)
    return torch.cat([mixed + 1.0, torch.ones(rows, 1)], dim=1).double()


def error(read: Tensor, whole: Tensor, levels: Tensor, scale: Tensor, bias: Tensor) -> float:
    """Return the squared error of what the rounded layer writes."""
    rounded = torch.cat([levels.float() * scale[:, None], bias[:, None]], dim=1)
    return float((read @ (rounded - whole).double().t()).square().sum())


def layer(seed: int, out: int, features: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(out, features, generator=generator), torch.randn(out, generator=generator)


@pytest.mark.parametrize(("out", "features"), [(2, 12), (6, 20), (4, 150)])
def test_it_beats_rounding_to_nearest_where_inputs_are_correlated(out: int, features: int) -> None:
    found = nearest = 0.0
    for seed in range(10):
        read = inputs(seed, 3 * features + 8, features)
        weight, bias = layer(seed, out, features)
        whole = torch.cat([weight, bias[:, None]], dim=1)
        levels, scale, moved = round_to_four_bits(weight, bias, read.t() @ read)
        assert levels.dtype is torch.int8
        assert int(levels.min()) >= -8
        assert int(levels.max()) <= 7
        plain = four_bit_scale(weight)
        found += error(read, whole, levels, scale, moved)
        nearest += error(read, whole, four_bit_levels(weight, plain[:, None]), plain, bias)
    assert found < 0.7 * nearest


@pytest.mark.parametrize("block", [1, 7, 50])
def test_blocks_change_nothing_but_the_speed(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    read = inputs(3, 200, 50)
    weight, bias = layer(0, 4, 50)
    levels, scale, moved = round_to_four_bits(weight, bias, read.t() @ read)
    monkeypatch.setattr(rounding, "BLOCK", block)
    again = round_to_four_bits(weight, bias, read.t() @ read)
    assert torch.equal(again[1], scale)
    # Sums are taken in another order, which may decide a tie and with it all columns after it.
    whole = torch.cat([weight, bias[:, None]], dim=1)
    assert error(read, whole, *again) == pytest.approx(error(read, whole, levels, scale, moved), rel=0.1)


def test_independent_inputs_are_rounded_to_nearest() -> None:
    weight, bias = layer(0, 5, 12)
    levels, scale, moved = round_to_four_bits(weight, bias, torch.eye(13, dtype=torch.float64))
    assert torch.equal(levels.float(), four_bit_levels(weight, scale[:, None]))
    torch.testing.assert_close(moved, bias)


def test_a_layer_that_no_token_reached_is_rounded_too() -> None:
    weight, bias = layer(0, 3, 6)
    levels, scale, moved = round_to_four_bits(weight, bias, torch.zeros(7, 7, dtype=torch.float64))
    assert bool(torch.isfinite(moved).all())
    assert float((levels.float() * scale[:, None] - weight).abs().max()) < 1.0
