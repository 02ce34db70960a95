"""Weights in blocks, by the operator of ONNX Runtime whose numbers their modules compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from export.emit import Emit, taken_apart
from export.values import Value
from models.errors import Unsupported
from models.kinds import Blocks
from models.layers.blocked import ACTIVATION_LIMIT, BlockedEmbedding, BlockedLinear, zero_level

INT8_ACTIVATIONS = 4  # of the operator's levels of accuracy
TINY = 1e-35


class Rows(NamedTuple):
    """What is multiplied with: levels (out, blocks, inputs * bits / 8), scales (out, blocks), how many inputs they are
    of, in what blocks, and perhaps a bias (out,).
    """

    levels: Tensor
    scale: Tensor
    width: int
    blocks: Blocks
    bias: Tensor | None = None


def lower_blocked_linears(modules: Sequence[BlockedLinear], emits: Sequence[Emit], hidden: Value) -> list[Value]:
    """Return the output of every module, for x (..., in): one product of all that read the same values."""
    blocks, width = modules[0].blocks, modules[0].in_features
    if any(module.blocks != blocks for module in modules):
        return [lower_blocked_linears([one], [emit], hidden)[0] for one, emit in zip(modules, emits, strict=True)]
    levels, scale, bias = (
        torch.cat([module.get_buffer(name) for module in modules]) for name in ("weight", "weight_scale", "bias")
    )
    rows = Rows(levels, scale, width, blocks, bias if bool(bias.any()) else None)
    emit = emits[0]
    if len(modules) == 1:
        return [_product(rows, emit, hidden, role="output")]
    together = _product(rows, emit, hidden, role="together")
    return taken_apart([module.out_features for module in modules], emits, together)


def blocked_words(table: BlockedEmbedding, emit: Emit, hidden: Value, bias: Tensor | None) -> Value:
    """Return the products of states (..., width) with every row of a table, (..., rows), plus a bias; the file holds
    the table once, to look words up in and to write them with.
    """
    rows = Rows(table.weight, table.weight_scale, table.width, table.blocks, bias)
    return _product(rows, emit, hidden, role="logits")


def _product(rows: Rows, emit: Emit, hidden: Value, *, role: str) -> Value:
    """Return x @ W.T + b for x (..., in)."""
    _check_target(emit)
    levels, scale = emit.constant(rows.levels, "weight"), emit.constant(rows.scale, "weight_scale")
    bias = [] if rows.bias is None else [None, None, emit.constant(rows.bias, "bias")]  # after zero points and an order
    return emit.microsoft(
        "MatMulNBits",
        hidden,
        levels,
        scale,
        *bias,
        role=role,
        K=rows.width,
        N=len(rows.levels),
        bits=rows.blocks.bits,
        block_size=rows.blocks.inputs,
        accuracy_level=INT8_ACTIVATIONS,
    )


def lower_blocked_embedding(module: BlockedEmbedding, emit: Emit, indices: Value) -> Value:
    """Return rows (..., width) in float32 for whole numbers of two axes."""
    return blocked_rows(Rows(module.weight, module.weight_scale, module.width, module.blocks), emit, indices)


def blocked_rows(of: Rows, emit: Emit, indices: Value) -> Value:
    """Return rows (..., width) in float32 for whole numbers of two axes."""
    _check_target(emit)
    stored = emit.node("Gather", emit.constant(of.levels, "weight"), indices, role="stored")
    levels = _levels(emit, stored, of.blocks.bits)
    scales = emit.node("Gather", emit.constant(of.scale, "weight_scale"), indices, role="scales")
    each = emit.node("Unsqueeze", scales, emit.integers([-1], "last"), role="scale_of_each")
    scaled = emit.node("Mul", levels, each, role="scaled")
    rows = emit.node("Reshape", scaled, emit.integers([0, 0, -1], "flat"), role="rows")
    if of.width % of.blocks.inputs:
        rows = emit.cut(rows, of.width, role="kept_rows")
    return rows


def _levels(emit: Emit, stored: Value, bits: int) -> Value:
    """Return (..., blocks, inputs) in float32 for what the operator stores, (..., blocks, inputs * bits / 8)."""
    if bits == 8:
        zero = emit.constant(np.array(zero_level(bits), dtype=np.float32), "zero_level")
        return emit.node("Sub", emit.node("Cast", stored, role="float_levels", to=1), zero, role="levels")
    # Each byte is looked up as the two levels that it holds.
    bytes_ = np.arange(256)[:, None] >> np.array([0, 4])
    twos = emit.constant(((bytes_ & 15) - zero_level(bits)).astype(np.float32), "twos")
    looked_up = emit.node("Gather", twos, emit.node("Cast", stored, role="numbers", to=6), role="looked_up")
    return emit.node("Reshape", looked_up, emit.integers([0, 0, 0, -1], "by_block"), role="levels")


def listed_in_blocks(
    module: BlockedLinear | BlockedEmbedding, emit: Emit, hidden: Value, numbers: Value, bias: Value | None
) -> Value:
    """Return the products of states (batch, new, width) with the rows of these `numbers` (listed,), (batch, new,
    listed), each number that of all rows to float rounding, plus a bias (listed,). The operator wants rows that do not
    change, so these are unpacked, and the states are rounded as it rounds them.
    """
    width = module.in_features if isinstance(module, BlockedLinear) else module.width
    one = emit.integers([0], "one")
    line = emit.node("Unsqueeze", numbers, one, role="listed_line")
    rows = blocked_rows(Rows(module.weight, module.weight_scale, width, module.blocks), emit, line)
    by_width = emit.node("Transpose", emit.node("Squeeze", rows, one, role="listed_rows"), role="by_width", perm=[1, 0])
    if isinstance(module, BlockedLinear):
        own = emit.node("Gather", emit.constant(module.bias, "own_bias"), numbers, role="listed_own_biases")
        bias = own if bias is None else emit.node("Add", own, bias, role="listed_bias")
    sums = emit.node("MatMul", _rounded(module.blocks.inputs, width, emit, hidden), by_width, role="listed_products")
    return sums if bias is None else emit.node("Add", sums, bias, role="listed_logits")


def _rounded(inputs: int, width: int, emit: Emit, hidden: Value) -> Value:
    """Return states (batch, new, width) as the operator rounds them: to int8, in blocks with a scale each."""
    missing = -width % inputs
    if missing:
        hidden = emit.node("Pad", hidden, emit.integers([0, 0, 0, 0, 0, missing], "missing"), role="filled_states")
    blocks = emit.node("Reshape", hidden, emit.integers([0, 0, -1, inputs], "by_block"), role="blocked_states")
    largest = emit.node("ReduceMax", emit.node("Abs", blocks, role="sizes"), role="largest", axes=[-1])
    # What is too small for a scale is zero: a block of zeros must not become none.
    limit = emit.node("Max", largest, emit.constant(np.array(TINY, dtype=np.float32), "tiny"), role="limit")
    most = emit.constant(np.array(ACTIVATION_LIMIT, dtype=np.float32), "most")
    scale = emit.node("Div", limit, most, role="state_scale")
    levels = emit.node("Round", emit.node("Div", blocks, scale, role="shares"), role="state_levels")
    rounded = emit.node("Mul", levels, scale, role="rounded_blocks")
    flat = emit.node("Reshape", rounded, emit.integers([0, 0, -1], "flat"), role="rounded_states")
    if not missing:
        return flat
    return emit.cut(flat, width, role="kept_states")


def _check_target(emit: Emit) -> None:
    if not emit.target.blocks:
        raise Unsupported(
            f"the target {emit.target.name} multiplies no weights in blocks",
            where=emit.path,
            fix="Export for cpu, or quantize with weights: int4 or int8.",
        )
