"""Activations between linear layers."""

from __future__ import annotations

import math

import numpy as np
from torch import nn

from export.emit import Emit
from export.values import Value


def lower_gelu(module: nn.GELU, emit: Emit, hidden: Value) -> Value:
    """Return x * Phi(x), by the error function or by the tanh approximation (Hendrycks & Gimpel 2016)."""
    if emit.target.microsoft:
        return emit.microsoft("Gelu" if module.approximate == "none" else "FastGelu", hidden, role="activated")
    if module.approximate == "none":
        scaled = emit.node("Div", hidden, _number(emit, math.sqrt(2), "root_two"), role="scaled")
        bent = emit.node("Erf", scaled, role="bent")
    else:
        square = emit.node("Mul", hidden, hidden, role="square")
        cube = emit.node("Mul", square, hidden, role="cube")
        small = emit.node("Mul", cube, _number(emit, 0.044715, "cubic"), role="small")
        inner = emit.node("Add", hidden, small, role="inner")
        scaled = emit.node("Mul", inner, _number(emit, math.sqrt(2 / math.pi), "root_two_over_pi"), role="scaled")
        bent = emit.node("Tanh", scaled, role="bent")
    share = emit.node("Add", bent, _number(emit, 1.0, "one"), role="share")
    double = emit.node("Mul", hidden, share, role="double")
    return emit.node("Mul", double, _number(emit, 0.5, "half"), role="activated")


def lower_relu(_: nn.ReLU, emit: Emit, hidden: Value) -> Value:
    """Return max(x, 0)."""
    return emit.node("Relu", hidden, role="activated")


def lower_silu(_: nn.SiLU, emit: Emit, hidden: Value) -> Value:
    """Return x * sigmoid(x)."""
    return emit.node("Mul", hidden, emit.node("Sigmoid", hidden, role="gate"), role="activated")


def lower_tanh(_: nn.Tanh, emit: Emit, hidden: Value) -> Value:
    """Return tanh(x)."""
    return emit.node("Tanh", hidden, role="activated")


def _number(emit: Emit, value: float, role: str) -> Value:
    return emit.constant(np.array(value, dtype=np.float32), role)
