"""Int8 layers that compute in PyTorch what ONNX Runtime computes.

Activations are uint8 with a zero point, weights int8 with one scale per output channel and no zero point, sums int32
(ONNX operators DynamicQuantizeLinear, QuantizeLinear and MatMulInteger). ONNX Runtime takes one activation scale for
the whole tensor of a call; here it is one per example, which is the same thing at batch 1 without padding, the shape
that a device runs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.kinds import Int8Form

ACTIVATION_LEVELS = 255  # uint8
WEIGHT_LIMIT = 127  # symmetric int8: -128 is never used
# x86 without VNNI sums the products of two neighbours in 16 bits: two of 255 * 64 always have room there.
REDUCED_LIMIT = 64


def quantize_weight(weight: Tensor, *, limit: int = WEIGHT_LIMIT) -> tuple[Tensor, Tensor]:
    """Return int8 weights of up to `limit` and one scale per row: (out, in) -> int8 (out, in), float32 (out,).

    Symmetric, so that the runtime needs no zero point; an all-zero row gets scale 1.
    """
    largest = weight.detach().float().abs().amax(dim=1)
    scale = torch.where(largest > 0, largest / limit, torch.ones_like(largest))
    quantized = torch.round(weight.detach().float() / scale[:, None]).clamp(-limit, limit)
    return quantized.to(torch.int8), scale


def dynamic_range(hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and zero point of each example of `hidden` (batch, ..., features), each shaped (batch, 1, ...).

    The formula of ONNX DynamicQuantizeLinear: the range is widened to hold zero, and the zero point is rounded half to
    even and clipped to 0..255.
    """
    axes = tuple(range(1, hidden.ndim))
    low = hidden.amin(dim=axes, keepdim=True).clamp(max=0)
    high = hidden.amax(dim=axes, keepdim=True).clamp(min=0)
    scale = (high - low) / ACTIVATION_LEVELS
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    zero_point = torch.round((0 - low) / scale).clamp(0, ACTIVATION_LEVELS)
    return scale, zero_point


def quantize_activation(hidden: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Return `hidden` as whole numbers 0..255 in float32 (ONNX QuantizeLinear: divide, round half to even, clip)."""
    return (torch.round(hidden / scale) + zero_point).clamp(0, ACTIVATION_LEVELS)


def integer_matmul(quantized: Tensor, zero_point: Tensor, weight: Tensor) -> Tensor:
    """Return sum over k of (quantized - zero_point) * weight as int32, exactly (ONNX MatMulInteger).

    `quantized` holds whole numbers 0..255, (..., in); `weight` is int8 (out, in); the result is (..., out).
    """
    rows = quantized.reshape(-1, quantized.shape[-1])
    # uint8 x int8 as int8 x int8: (q - 128) @ w.T + (128 - z) * sum(w). Exact in int32 for any width up to 66,000.
    shifted = (rows - 128).to(torch.int8)
    if rows.shape[0] and rows.shape[1] > 1:
        product = torch._int_mm(shifted, weight.t())
    else:  # torch 2.13's _int_mm returns memory it never wrote for one column, and refuses no rows
        product = shifted.int() @ weight.t().int()
    offset = (128 - zero_point).to(torch.int32).expand(*quantized.shape[:-1], 1).reshape(-1, 1)
    product = product + offset * weight.sum(dim=1, dtype=torch.int32)
    return product.reshape(*quantized.shape[:-1], len(weight))


def _rounded(value: Tensor) -> Tensor:
    """Return round(value) with the gradient of the identity: straight-through (Bengio et al. 2013)."""
    return value + (torch.round(value) - value).detach()


class QuantizedLinear(nn.Module):
    """A linear layer in int8: weight int8 (out, in), weight_scale (out,), bias (out,).

    With Int8Form.STATIC the activation's scale and zero point are buffers from calibration; with DYNAMIC they are
    computed per example.
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor
    input_scale: Tensor
    input_zero_point: Tensor

    def __init__(self, in_features: int, out_features: int, *, form: Int8Form) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.form = form
        self.register_buffer("weight", torch.zeros(out_features, in_features, dtype=torch.int8))
        self.register_buffer("weight_scale", torch.ones(out_features))
        self.register_buffer("bias", torch.zeros(out_features))
        if form is Int8Form.STATIC:
            self.register_buffer("input_scale", torch.ones(()))
            self.register_buffer("input_zero_point", torch.zeros((), dtype=torch.uint8))

    def input_range(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scale and zero point that `hidden` is quantized with."""
        if self.form is Int8Form.STATIC:
            return self.input_scale, self.input_zero_point.float()
        return dynamic_range(hidden)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (..., out_features) for `hidden` (batch, ..., in_features)."""
        scale, zero_point = self.input_range(hidden)
        quantized = quantize_activation(hidden, scale, zero_point)
        sums = integer_matmul(quantized, zero_point, self.weight)
        return sums.float() * (scale * self.weight_scale) + self.bias


class FakeQuantizedLinear(nn.Module):
    """A float linear layer that rounds as QuantizedLinear would, with a straight-through gradient (for training).

    With `rounding` off it is the float layer.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight
        self.bias = linear.bias
        self.rounding = True

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (..., out_features)."""
        if not self.rounding:
            return nn.functional.linear(hidden, self.weight, self.bias)
        with torch.no_grad():
            scale, zero_point = dynamic_range(hidden)
            _, weight_scale = quantize_weight(self.weight)
        levels = (_rounded(hidden / scale) + zero_point).clamp(0, ACTIVATION_LEVELS)
        rounded = (levels - zero_point) * scale
        weight = (
            _rounded(self.weight / weight_scale[:, None]).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT) * weight_scale[:, None]
        )
        return nn.functional.linear(rounded, weight, self.bias)


class QuantizedEmbedding(nn.Module):
    """An embedding table in int8 with one scale per row: weight int8 (rows, width), weight_scale (rows,)."""

    weight: Tensor
    weight_scale: Tensor

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(rows, width, dtype=torch.int8))
        self.register_buffer("weight_scale", torch.ones(rows))

    def forward(self, indices: Tensor) -> Tensor:
        """Return (..., width) float32 for whole-number `indices` (...)."""
        return self.weight[indices].float() * self.weight_scale[indices].unsqueeze(-1)

    def products(self, hidden: Tensor) -> Tensor:
        """Return (..., rows): the products of states (batch, ..., width) with every row, as a dynamic QuantizedLinear
        computes them.
        """
        scale, zero_point = dynamic_range(hidden)
        sums = integer_matmul(quantize_activation(hidden, scale, zero_point), zero_point, self.weight)
        return sums.float() * (scale * self.weight_scale)
