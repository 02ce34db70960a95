"""Normalisation over the last axis."""

from __future__ import annotations

import numpy as np
from torch import nn

from export.emit import Emit
from export.values import Value
from models.layers.norm import ElementwiseNorm


def lower_layer_norm(module: nn.LayerNorm, emit: Emit, hidden: Value) -> Value:
    """Return (x - mean) / sqrt(variance + eps) * weight + bias."""
    weight, bias = emit.constant(module.weight, "weight"), emit.constant(module.bias, "bias")
    return emit.node("LayerNormalization", hidden, weight, bias, role="output", axis=-1, epsilon=module.eps)


def lower_rms_norm(module: nn.RMSNorm, emit: Emit, hidden: Value) -> Value:
    """Return x / sqrt(mean of squares + eps) * weight; by hand, as the operator is younger than our operator set."""
    eps = np.finfo(np.float32).eps if module.eps is None else module.eps
    square = emit.node("Mul", hidden, hidden, role="square")
    mean = emit.node("ReduceMean", square, role="mean_square", axes=[-1], keepdims=1)
    shifted = emit.node("Add", mean, emit.constant(np.array(eps, dtype=np.float32), "eps"), role="shifted")
    root = emit.node("Sqrt", shifted, role="root")
    scaled = emit.node("Div", hidden, root, role="scaled")
    return emit.node("Mul", scaled, emit.constant(module.weight, "weight"), role="output")


def lower_elementwise_norm(module: ElementwiseNorm, emit: Emit, hidden: Value) -> Value:
    """Return x * weight + bias."""
    scaled = emit.node("Mul", hidden, emit.constant(module.weight, "weight"), role="scaled")
    return emit.node("Add", scaled, emit.constant(module.bias, "bias"), role="output")
