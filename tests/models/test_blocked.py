"""Weights in blocks: how they are stored and rounded, and what their layers read."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models.kinds import BLOCKS, Blocks, Int8Form
from models.layers.blocked import (
    BlockedEmbedding,
    BlockedLinear,
    pack_blocks,
    round_to_blocks,
    rounded_in_blocks,
    unpack_blocks,
)

SIZES = st.sampled_from(sorted(BLOCKS.values()))
FINE, BYTES = BLOCKS[Int8Form.BLOCKS32], BLOCKS[Int8Form.BYTES128]


def drawn(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


def linear_of(weight: Tensor, blocks: Blocks) -> BlockedLinear:
    layer = BlockedLinear(weight.shape[1], len(weight), blocks=blocks)
    layer.weight, layer.weight_scale = round_to_blocks(weight, blocks)
    return layer


@given(st.integers(0, 99), st.integers(1, 4), st.integers(1, 140), SIZES)
def test_levels_come_back_and_neighbours_share_a_byte(seed: int, rows: int, width: int, blocks: Blocks) -> None:
    half = 1 << (blocks.bits - 1)
    levels = torch.randint(-half, half, (rows, width), generator=torch.Generator().manual_seed(seed))
    packed = pack_blocks(levels, blocks)
    count = -(-width // blocks.inputs)
    assert (packed.dtype, packed.shape) == (torch.uint8, (rows, count, blocks.inputs * blocks.bits // 8))
    scale = 1.0 + torch.arange(count).float()
    expected = levels * scale.repeat_interleave(blocks.inputs)[:width]
    assert torch.equal(unpack_blocks(packed, scale.expand(rows, count), width, blocks.bits), expected)
    assert int(packed[0, 0, 0]) % (2 * half) == int(levels[0, 0]) + half
    if width % blocks.inputs:
        assert int(packed[-1, -1, -1]) >> (8 - blocks.bits) == half  # zero


def test_what_has_16_levels_in_every_block_is_kept_exactly() -> None:
    scale = torch.tensor([[1.0, -0.25, 0.5]])
    weight = torch.arange(-8, 8).float().repeat(2, 6) * scale.repeat_interleave(32, dim=1)
    levels, found = round_to_blocks(weight, FINE)
    torch.testing.assert_close(unpack_blocks(levels, found, 96, 4), weight, rtol=1e-6, atol=1e-6)


def test_smaller_blocks_are_more_exact_and_zeros_stay_zeros() -> None:
    weight = drawn(64, 384) * torch.linspace(0.2, 3.0, 384)
    errors = []
    for blocks in (BYTES, Blocks(32, 4), Blocks(64, 4), Blocks(128, 4)):
        levels, scale = round_to_blocks(weight, blocks)
        rows = unpack_blocks(levels, scale, 384, blocks.bits)
        errors.append(float((rows - weight).square().mean() / weight.square().mean()))
        levels, scale = round_to_blocks(torch.zeros(2, 40), blocks)
        assert not unpack_blocks(levels, scale, 40, blocks.bits).any()
    assert errors == sorted(errors)
    assert errors[0] < 0.0001
    assert errors[1] < 0.009


def test_what_is_read_has_a_scale_for_every_block_of_a_row() -> None:
    hidden = torch.cat([drawn(3, 32), 1000 * drawn(3, 32, seed=1), torch.zeros(3, 8)], dim=1)
    rounded = rounded_in_blocks(hidden, 32)
    for block in hidden.split(32, dim=1), rounded.split(32, dim=1):
        assert len(block) == 3
    for read, found in zip(hidden.split(32, dim=1), rounded.split(32, dim=1), strict=True):
        step = read.abs().amax(dim=1, keepdim=True) / 127
        assert bool(((found - read).abs() <= step * 0.5001).all())
    assert torch.equal(rounded[:, 64:], torch.zeros(3, 8))
    assert torch.equal(rounded_in_blocks(torch.full((1, 4), 1e-40), 32), torch.zeros(1, 4))  # no scale is so small


def test_a_row_is_multiplied_alike_in_every_batch() -> None:
    layer, hidden = linear_of(drawn(9, 70), FINE), drawn(2, 3, 70, seed=2)
    hidden[1] *= 50
    torch.testing.assert_close(layer(hidden)[0, 1], layer(hidden[:1, 1:2])[0, 0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("blocks", BLOCKS.values(), ids=str)
def test_a_table_writes_as_a_layer_of_its_rows(blocks: Blocks) -> None:
    weight, states = drawn(11, 45), drawn(2, 3, 45, seed=3)
    layer, table = linear_of(weight, blocks), BlockedEmbedding(11, 45, blocks=blocks)
    table.load_state_dict({"weight": layer.weight, "weight_scale": layer.weight_scale})
    assert torch.equal(table.products(states), layer(states))
    words = torch.tensor([[4, 0], [10, 4]])
    assert torch.equal(table(words), unpack_blocks(layer.weight, layer.weight_scale, 45, blocks.bits)[words])
    assert (table(words) - weight[words]).abs().max() < 0.5
