"""Tiny random networks, and their int8 forms."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models.kinds import Int8Form, Positions
from models.layers.quantized import QuantizedLinear, quantize_weight
from models.network import Network
from models.shape import HeadShape, LayerShape, ModelShape

EVEN = (LayerShape(4, 8, 48), LayerShape(4, 8, 48))
PRUNED = (LayerShape(3, 8, 40), LayerShape(0, 8, 17), LayerShape(1, 8, 0), LayerShape(0, 8, 0), LayerShape(2, 8, 5))


# Pre-norm layers whose tokens are turned, some in a window, with gates: what ModernBERT has, and with one layer pruned.
TURNED: dict[str, Any] = {"pre_norm": True, "gated": True, "positions": Positions.NONE, "type_vocab_size": 0}
WINDOWS = (
    LayerShape(4, 8, 48, rotary=500.0, normed=False),
    LayerShape(3, 8, 17, window=3, rotary=20.0),
    LayerShape(0, 8, 0, window=3, rotary=20.0),
    LayerShape(2, 6, 5, window=3, rotary=20.0),
)
# A window with tokens that read and are read everywhere, one without, and linear attention.
EFFICIENT = (
    LayerShape(3, 8, 9, window=3, global_tokens=2),
    LayerShape(2, 8, 5, window=4),
    LayerShape(2, 8, 7, linear=True),
)
# Layers that write: causal, some with cross-attention, pruned in every way.
WRITES = (
    LayerShape(3, 8, 40, causal=True, cross_heads=2),
    LayerShape(0, 8, 17, causal=True, cross_heads=1),
    LayerShape(1, 8, 0, causal=True, cross_heads=0),
    LayerShape(2, 8, 5, causal=True),
)


def tiny_shape(layers: tuple[LayerShape, ...] = EVEN, **changes: Any) -> ModelShape:
    """Return a BERT of width 32 with 50 words, 40 positions and 3 labels."""
    settings: dict[str, Any] = {
        "family": "bert",
        "vocab_size": 50,
        "hidden_size": 32,
        "max_positions": 40,
        "type_vocab_size": 2,
        "head": HeadShape(("a", "b", "c")),
    }
    return ModelShape(layers=layers, **(settings | changes))


def random_network(shape: ModelShape, *, seed: int = 0) -> Network:
    """Return a network whose every weight and bias is drawn, so that none can be left out unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    network = Network(shape).eval()
    for name, weight in network.named_parameters():
        scale = 0.2 if weight.ndim > 1 else 0.1
        drawn = torch.randn(weight.shape, generator=generator) * scale
        weight.data = drawn + 1.0 if "norm" in name and name.endswith("weight") else drawn
    for name, fixed in network.named_buffers():
        if ".projection." in name:
            fixed.copy_(torch.randn(fixed.shape, generator=generator) * 0.2)
    return network


def quantized_network(network: Network, form: Int8Form, *, table: bool = True) -> Network:
    """Return the network with every linear layer below its head, and its word table, in int8."""
    forms = {
        name: form
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith("head.") and module.weight.numel()
    }
    forms |= {"embeddings.word": Int8Form.TABLE} if table and network.shape.image is None else {}
    quantized = Network(network.shape.with_int8(forms)).eval()
    values = quantized.state_dict()
    for name, weight in network.state_dict().items():
        path = name.rpartition(".")[0]
        if path in forms and name.endswith(".weight"):
            values[name], values[f"{path}.weight_scale"] = quantize_weight(weight)
        else:
            values[name] = weight
    quantized.load_state_dict(values)
    for module in quantized.modules():
        if isinstance(module, QuantizedLinear) and module.form is Int8Form.STATIC:
            module.input_scale.fill_(0.03)
            module.input_zero_point.fill_(120)
    return quantized
