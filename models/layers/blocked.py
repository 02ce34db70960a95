"""Weights in blocks of 4 or 8 bits, which compute what ONNX Runtime's MatMulNBits computes.

What is read is rounded to int8 (accuracy level 4 of the operator): every row for itself, in the same blocks, with a
scale of largest magnitude / 127 and no zero point. So nothing depends on a batch, on padding or on other beams. The
operator sums whole numbers within a block and blocks in float; here all sums are in float, the same to float rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from models.kinds import Blocks, Int8Form
from models.layers.packed import four_bit_levels, row_scale
from models.layers.quantized import quantize_weight

ACTIVATION_LIMIT = 127  # symmetric int8


def block_count(width: int, inputs: int) -> int:
    """Return how many blocks so many inputs have; the last may be cut short."""
    return -(-width // inputs)


def zero_level(bits: int) -> int:
    """Return what the operator stores for zero."""
    return 1 << (bits - 1)


def pack_blocks(levels: Tensor, blocks: Blocks) -> Tensor:
    """Return levels, (rows, width) of any type, as the operator has them: uint8 (rows, blocks, inputs * bits / 8).

    They are stored plus `zero_level`, in 4 bits two neighbours in a byte, the first in its low half; what a last block
    lacks is zero.
    """
    raised = (_filled(levels, blocks.inputs) + zero_level(blocks.bits)).to(torch.uint8)
    return raised if blocks.bits == 8 else raised[..., 0::2] | (raised[..., 1::2] << 4)


def unpack_blocks(weight: Tensor, scale: Tensor, width: int, bits: int) -> Tensor:
    """Return rows (..., width) in float32 for what `pack_blocks` made of them, (..., blocks, inputs * bits / 8), and
    their scales (..., blocks).
    """
    stored = weight if bits == 8 else torch.stack([weight & 15, weight >> 4], dim=-1).flatten(-2)
    return ((stored.float() - zero_level(bits)) * scale.unsqueeze(-1)).flatten(-2)[..., :width]


def block_scale(values: Tensor, inputs: int) -> Tensor:
    """Return the scales (rows, blocks) of a matrix (rows, width) that make the squared error of rounding to 4 bits
    least.
    """
    blocks = _filled(values.detach().float(), inputs)
    return row_scale(blocks.flatten(0, 1), Int8Form.TABLE4).reshape(blocks.shape[:2])


def round_to_blocks(weight: Tensor, blocks: Blocks) -> tuple[Tensor, Tensor]:
    """Return packed levels and scales of the nearest weights: (rows, width) -> uint8 (rows, blocks, inputs * bits / 8),
    float32 (rows, blocks).
    """
    filled = _filled(weight.detach().float(), blocks.inputs)
    if blocks.bits == 8:
        levels, flat = quantize_weight(filled.flatten(0, 1))
        return pack_blocks(levels.reshape(len(filled), -1), blocks), flat.reshape(filled.shape[:2])
    scale = block_scale(weight, blocks.inputs)
    return pack_blocks(four_bit_levels(filled, scale.unsqueeze(-1)).flatten(1), blocks), scale


def rounded_in_blocks(hidden: Tensor, inputs: int) -> Tensor:
    """Return `hidden` (..., width) as the operator rounds it: whole numbers -127..127 times a scale for each block of a
    row. A block that is too small for a scale is zero.
    """
    blocks = _filled(hidden, inputs)
    limit = blocks.abs().amax(dim=-1, keepdim=True)
    inverse = ACTIVATION_LIMIT / limit
    levels = torch.round(blocks * torch.where(inverse.isfinite(), inverse, torch.zeros_like(inverse)))
    return (levels * (limit / ACTIVATION_LIMIT)).flatten(-2)[..., : hidden.shape[-1]]


def _filled(values: Tensor, inputs: int) -> Tensor:
    """Return (..., blocks, inputs) for (..., width), with zeros where the last block is cut short."""
    *before, width = values.shape
    return pad(values, (0, -width % inputs)).reshape(*before, block_count(width, inputs), inputs)


class BlockedLinear(nn.Module):
    """A linear layer in blocks: weight uint8 (out, blocks, inputs * bits / 8) as of `pack_blocks`, weight_scale (out,
    blocks), bias (out,).
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor

    def __init__(self, in_features: int, out_features: int, *, blocks: Blocks) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.blocks = blocks
        _register(self, out_features, in_features, blocks)
        self.register_buffer("bias", torch.zeros(out_features))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (..., out_features) for `hidden` (..., in_features)."""
        rows = unpack_blocks(self.weight, self.weight_scale, self.in_features, self.blocks.bits)
        return linear(rounded_in_blocks(hidden, self.blocks.inputs), rows, self.bias)


class BlockedEmbedding(nn.Module):
    """An embedding table in blocks, which are multiplied with where words are written: weight uint8 (rows, blocks,
    inputs * bits / 8) as of `pack_blocks`, weight_scale (rows, blocks).
    """

    weight: Tensor
    weight_scale: Tensor

    def __init__(self, rows: int, width: int, *, blocks: Blocks) -> None:
        super().__init__()
        self.width = width
        self.blocks = blocks
        _register(self, rows, width, blocks)

    def forward(self, indices: Tensor) -> Tensor:
        """Return (..., width) float32 for whole-number `indices` (...)."""
        return unpack_blocks(self.weight[indices], self.weight_scale[indices], self.width, self.blocks.bits)

    def products(self, hidden: Tensor) -> Tensor:
        """Return (..., rows): the products of states (..., width) with every row, as a BlockedLinear computes them."""
        rows = unpack_blocks(self.weight, self.weight_scale, self.width, self.blocks.bits)
        return linear(rounded_in_blocks(hidden, self.blocks.inputs), rows)


def _register(module: nn.Module, rows: int, width: int, blocks: Blocks) -> None:
    """Give a module levels and scales of so many rows."""
    count = block_count(width, blocks.inputs)
    levels = torch.zeros(rows, count, blocks.inputs * blocks.bits // 8, dtype=torch.uint8)
    module.register_buffer("weight", levels)
    module.register_buffer("weight_scale", torch.ones(rows, count))
