"""Int8 linear layers, and tables in 8 and 4 bits, number for number what their modules compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from export.emit import Emit
from export.values import Value
from models.kinds import Int8Form
from models.layers.packed import HIGHEST, LOWEST, PackedEmbedding, TwoBitEmbedding, pack
from models.layers.quantized import QuantizedEmbedding, QuantizedLinear


class Activation(NamedTuple):
    """A quantized input: uint8 levels, float32 scale, uint8 zero point."""

    levels: Value
    scale: Value
    zero_point: Value


class Int8Weight(NamedTuple):
    """What a quantized input is multiplied by: int8 levels (in, out), and scales and perhaps a bias (out,)."""

    levels: Value
    scale: Value
    bias: Value | None


def lower_quantized_linears(modules: Sequence[QuantizedLinear], emits: Sequence[Emit], hidden: Value) -> list[Value]:
    """Return the output of every module, for x (..., in): one quantization of x feeds all that quantize it alike."""
    if _alike(modules):
        activation = _quantize(modules[0], emits[0], hidden)
        return [_product(module, emit, activation) for module, emit in zip(modules, emits, strict=True)]
    return [lower_quantized_linears([module], [emit], hidden)[0] for module, emit in zip(modules, emits, strict=True)]


def _alike(modules: Sequence[QuantizedLinear]) -> bool:
    if len(modules) == 1 or all(module.form is Int8Form.DYNAMIC for module in modules):
        return True
    first = modules[0]
    return all(
        module.form is Int8Form.STATIC
        and torch.equal(module.input_scale, first.input_scale)
        and torch.equal(module.input_zero_point, first.input_zero_point)
        for module in modules
    )


def _quantize(module: QuantizedLinear, emit: Emit, hidden: Value) -> Activation:
    if module.form is Int8Form.DYNAMIC:
        return _ranged(emit, hidden)
    scale = emit.constant(module.input_scale, "input_scale")
    zero_point = emit.constant(module.input_zero_point, "input_zero_point")
    return Activation(emit.node("QuantizeLinear", hidden, scale, zero_point, role="levels"), scale, zero_point)


def _ranged(emit: Emit, hidden: Value) -> Activation:
    """Return an input in levels of the range that it has."""
    return Activation(*emit.nodes("DynamicQuantizeLinear", hidden, roles=("levels", "scale", "zero_point")))


def _constant(emit: Emit, value: Tensor | None, role: str) -> Value | None:
    return None if value is None else emit.constant(value, role)


def quantized_words(table: QuantizedEmbedding, emit: Emit, hidden: Value, bias: Tensor | None) -> Value:
    """Return the products of states (..., width) with every row of a table, (..., rows), plus a bias.

    The file holds the table once; ONNX Runtime turns it when a session starts.
    """
    weight = emit.node("Transpose", emit.constant(table.weight, "weight"), role="weight_by_width", perm=[1, 0])
    by = Int8Weight(weight, emit.constant(table.weight_scale, "weight_scale"), _constant(emit, bias, "bias"))
    return _multiplied(emit, _ranged(emit, hidden), by)


def listed_products(
    module: QuantizedLinear | QuantizedEmbedding, emit: Emit, hidden: Value, rows: Value, bias: Value | None
) -> Value:
    """Return the products of states (..., width) with the `rows` (listed,) of a table, or of a linear layer's weight,
    (..., listed), each number that of all rows, plus a bias (listed,).
    """
    if isinstance(module, QuantizedLinear):
        activation = _quantize(module, emit, hidden)
        every = emit.node("Transpose", _weight(module, emit), role="weight_by_row", perm=[1, 0])
        own = emit.node("Gather", emit.constant(module.bias, "own_bias"), rows, role="listed_own_biases")
        bias = own if bias is None else emit.node("Add", own, bias, role="listed_bias")
    else:
        activation, every = _ranged(emit, hidden), emit.constant(module.weight, "weight")
    levels = emit.node("Gather", every, rows, role="listed_levels", axis=0)
    scale = emit.node("Gather", emit.constant(module.weight_scale, "weight_scale"), rows, role="listed_scales")
    by_width = emit.node("Transpose", levels, role="listed_by_width", perm=[1, 0])
    return _multiplied(emit, activation, Int8Weight(by_width, scale, bias))


def _product(module: QuantizedLinear, emit: Emit, activation: Activation) -> Value:
    scale, bias = emit.constant(module.weight_scale, "weight_scale"), _constant(emit, module.bias, "bias")
    weight = Int8Weight(_weight(module, emit), scale, bias)
    if module.form is Int8Form.STATIC and not emit.target.microsoft:
        return _multiplied_between(emit, activation, weight, torch.zeros_like(module.weight_scale, dtype=torch.int8))
    return _multiplied(emit, activation, weight)


def _multiplied_between(emit: Emit, activation: Activation, by: Int8Weight, zero_points: Tensor) -> Value:
    """Return a product in float between what turns levels into floats (QDQ): the form of int8 that the execution
    providers of phones know. ONNX Runtime's own makes one integer product of it.
    """
    left = emit.node("DequantizeLinear", *activation, role="dequantized")
    zero_point = emit.constant(zero_points, "weight_zero_point")
    right = emit.node("DequantizeLinear", by.levels, by.scale, zero_point, role="dequantized_weight", axis=1)
    product = emit.node("MatMul", left, right, role="product")
    return product if by.bias is None else emit.node("Add", product, by.bias, role="output")


def _multiplied(emit: Emit, activation: Activation, by: Int8Weight) -> Value:
    levels, scale, zero_point = activation
    if emit.target.microsoft:
        return emit.microsoft(
            "MatMulIntegerToFloat", levels, by.levels, scale, by.scale, zero_point, None, by.bias, role="output"
        )
    sums = emit.node("MatMulInteger", levels, by.levels, zero_point, role="sums")
    both = emit.node("Mul", scale, by.scale, role="scale_product")
    scaled = emit.node("Mul", emit.node("Cast", sums, role="float_sums", to=1), both, role="scaled")
    return scaled if by.bias is None else emit.node("Add", scaled, by.bias, role="output")


def _weight(module: QuantizedLinear, emit: Emit) -> Value:
    """Return the int8 weight (in, out); one whose levels fit in 4 bits is packed in the file.

    ONNX Runtime folds what unpacks it when a session starts, so that every call multiplies with plain int8.
    """
    levels = module.weight.t()
    if levels.numel() == 0 or int(levels.min()) < LOWEST or int(levels.max()) > HIGHEST:
        return emit.constant(levels, "weight")
    unpacked = _unpacked(emit, emit.constant(pack(levels), "weight"), module.out_features)
    return emit.node("Cast", unpacked, role="int8_levels", to=3)


def lower_quantized_embedding(module: QuantizedEmbedding, emit: Emit, indices: Value) -> Value:
    """Return rows (..., width) in float32 for whole numbers (...)."""
    rows = emit.node("Gather", emit.constant(module.weight, "weight"), indices, role="levels")
    scale = emit.constant(module.weight_scale[:, None], "weight_scale")
    scales = emit.node("Gather", scale, indices, role="scales")
    return emit.node("Mul", emit.node("Cast", rows, role="float_levels", to=1), scales, role="rows")


def lower_packed_embedding(module: PackedEmbedding, emit: Emit, indices: Value) -> Value:
    """Return rows (..., width) in float32 for whole numbers (...)."""
    pairs = emit.node("Gather", emit.constant(module.weight, "weight"), indices, role="pairs")
    levels = _unpacked(emit, pairs, module.width)
    scales = emit.node("Gather", emit.constant(module.weight_scale[:, None], "weight_scale"), indices, role="scales")
    return emit.node("Mul", levels, scales, role="rows")


def lower_two_bit_embedding(module: TwoBitEmbedding, emit: Emit, indices: Value) -> Value:
    """Return rows (..., width) in float32 for whole numbers (...): each byte is looked up as the four levels it holds.

    The levels of all 256 bytes are 4 kB; taking a byte apart by arithmetic needs three times as many operators.
    """
    quads = emit.node("Gather", emit.constant(module.weight, "weight"), indices, role="quads")
    bytes_ = np.arange(256)[:, None] >> np.array([0, 2, 4, 6])
    fours = emit.constant((bytes_ & 3).astype(np.float32) - np.float32(1.5), "fours")
    looked_up = emit.node("Gather", fours, emit.node("Cast", quads, role="numbers", to=6), role="looked_up")
    # (..., bytes, 4) -> (..., 4 * bytes): the two axes of indices stay.
    levels = emit.node("Reshape", looked_up, emit.integers([0, 0, -1], "flat"), role="levels")
    if module.width % 4:
        levels = emit.cut(levels, module.width, role="kept_levels")
    scales = emit.node("Gather", emit.constant(module.weight_scale[:, None], "weight_scale"), indices, role="scales")
    return emit.node("Mul", levels, scales, role="rows")


def _unpacked(emit: Emit, pairs: Value, width: int) -> Value:
    """Return levels -8..7 in float32, (..., width), for what `pack` made of them.

    The halves of a byte are taken apart in float: on CPU that is faster than BitShift and than a lookup, and every
    runtime has the operators.
    """
    both = emit.node("Cast", pairs, role="float_pairs", to=1)
    high = emit.node("Floor", emit.node("Mul", both, _number(emit, 1 / 16, "sixteenth"), role="shifted"), role="high")
    low = emit.node("Sub", both, emit.node("Mul", high, _number(emit, 16, "sixteen"), role="high_part"), role="low")
    levels = emit.node("Concat", low, high, role="halves", axis=-1)
    if width % 2:
        levels = emit.cut(levels, width, role="levels")
    return emit.node("Add", levels, _number(emit, LOWEST, "lowest"), role="centred")


def _number(emit: Emit, value: float, role: str) -> Value:
    return emit.constant(np.array(value, dtype=np.float32), role)
