"""Weights in 4 bits with a scale for every block of inputs, which compute what ONNX Runtime's MatMulNBits computes.

What is read is rounded to int8 (accuracy level 4 of the operator): every row for itself, in the same blocks, with a
scale of largest magnitude / 127 and no zero point. So nothing depends on a batch, on padding or on other beams. The
operator sums whole numbers within a block and blocks in float; here all sums are in float, the same to float rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from models.kinds import Int8Form
from models.layers.packed import LOWEST, four_bit_levels, row_scale

ACTIVATION_LIMIT = 127  # symmetric int8


def block_count(width: int, block: int) -> int:
    """Return how many blocks so many inputs have; the last may be cut short."""
    return -(-width // block)


def pack_blocks(levels: Tensor, block: int) -> Tensor:
    """Return levels -8..7, (rows, width) of any type, as the operator has them: uint8 (rows, blocks, block / 2).

    They are stored plus 8, two neighbours in a byte, the first in its low half; what a last block lacks is zero.
    """
    raised = (_filled(levels, block) - LOWEST).to(torch.uint8)
    return raised[..., 0::2] | (raised[..., 1::2] << 4)


def unpack_blocks(weight: Tensor, scale: Tensor, width: int) -> Tensor:
    """Return rows (..., width) in float32 for what `pack_blocks` made of them, (..., blocks, block / 2), and their
    scales (..., blocks).
    """
    levels = torch.stack([weight & 15, weight >> 4], dim=-1).flatten(-2).float() + LOWEST
    return (levels * scale.unsqueeze(-1)).flatten(-2)[..., :width]


def block_scale(values: Tensor, block: int) -> Tensor:
    """Return the scales (rows, blocks) of a matrix (rows, width) that make the squared error of rounding least."""
    blocks = _filled(values.detach().float(), block)
    return row_scale(blocks.flatten(0, 1), Int8Form.TABLE4).reshape(blocks.shape[:2])


def round_to_blocks(weight: Tensor, *, block: int) -> tuple[Tensor, Tensor]:
    """Return packed levels and scales of the nearest weights: (rows, width) -> uint8 (rows, blocks, block / 2), float32
    (rows, blocks).
    """
    scale = block_scale(weight, block)
    levels = four_bit_levels(_filled(weight.detach().float(), block), scale.unsqueeze(-1))
    return pack_blocks(levels.flatten(1), block), scale


def rounded_in_blocks(hidden: Tensor, block: int) -> Tensor:
    """Return `hidden` (..., width) as the operator rounds it: whole numbers -127..127 times a scale for each block of a
    row. A block that is too small for a scale is zero.
    """
    blocks = _filled(hidden, block)
    limit = blocks.abs().amax(dim=-1, keepdim=True)
    inverse = ACTIVATION_LIMIT / limit
    levels = torch.round(blocks * torch.where(inverse.isfinite(), inverse, torch.zeros_like(inverse)))
    return (levels * (limit / ACTIVATION_LIMIT)).flatten(-2)[..., : hidden.shape[-1]]


def _filled(values: Tensor, block: int) -> Tensor:
    """Return (..., blocks, block) for (..., width), with zeros where the last block is cut short."""
    *before, width = values.shape
    return pad(values, (0, -width % block)).reshape(*before, block_count(width, block), block)


class BlockedLinear(nn.Module):
    """A linear layer in blocks of 4 bits: weight uint8 (out, blocks, block / 2) as of `pack_blocks`, weight_scale (out,
    blocks), bias (out,).
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor

    def __init__(self, in_features: int, out_features: int, *, block: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.block = block
        blocks = block_count(in_features, block)
        self.register_buffer("weight", torch.zeros(out_features, blocks, block // 2, dtype=torch.uint8))
        self.register_buffer("weight_scale", torch.ones(out_features, blocks))
        self.register_buffer("bias", torch.zeros(out_features))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (..., out_features) for `hidden` (..., in_features)."""
        rows = unpack_blocks(self.weight, self.weight_scale, self.in_features)
        return linear(rounded_in_blocks(hidden, self.block), rows, self.bias)


class BlockedEmbedding(nn.Module):
    """An embedding table in blocks of 4 bits, which are multiplied with where words are written: weight uint8 (rows,
    blocks, block / 2) as of `pack_blocks`, weight_scale (rows, blocks).
    """

    weight: Tensor
    weight_scale: Tensor

    def __init__(self, rows: int, width: int, *, block: int) -> None:
        super().__init__()
        self.width = width
        self.block = block
        blocks = block_count(width, block)
        self.register_buffer("weight", torch.zeros(rows, blocks, block // 2, dtype=torch.uint8))
        self.register_buffer("weight_scale", torch.ones(rows, blocks))

    def forward(self, indices: Tensor) -> Tensor:
        """Return (..., width) float32 for whole-number `indices` (...)."""
        return unpack_blocks(self.weight[indices], self.weight_scale[indices], self.width)

    def products(self, hidden: Tensor) -> Tensor:
        """Return (..., rows): the products of states (..., width) with every row, as a BlockedLinear computes them."""
        return linear(rounded_in_blocks(hidden, self.block), unpack_blocks(self.weight, self.weight_scale, self.width))
