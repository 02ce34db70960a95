"""Llama (Touvron et al. 2023) and what is built like it, such as SmolLM: causal layers with rotary positions, shared
keys and values, gated feed-forward networks and no biases.
"""

from __future__ import annotations

from typing import Any

from models.family import Config, Family
from models.kinds import Biases
from models.llama_stack import IGNORED, ROWS, llama_config, llama_shape
from models.shape import ModelShape
from models.weights import Layout, Names

# What a key that is false leaves out, where the other is true.
BIASES = {"attention_bias": r"layers\.\d+\.attention\..*\.bias", "mlp_bias": r"layers\.\d+\.ffn\..*\.bias"}


def shape_of(config: Config) -> ModelShape:
    """Return the shape of a Llama config; with biases in one sublayer those of the other are zero."""
    biases = Biases.ALL if any(config.get(key) for key in BIASES) else Biases.NONE
    return llama_shape(config, family="llama", biases=biases)


def layout_of(config: Config) -> Layout:
    """Return which biases a config switches off."""
    return Layout(zero=tuple(pattern for key, pattern in BIASES.items() if not config.get(key)))


def config_of(shape: ModelShape) -> dict[str, Any]:
    """Return the Llama config of a shape whose layers are all alike."""
    switches = dict.fromkeys(BIASES, shape.biases is Biases.ALL)
    return llama_config(shape, architecture="LlamaForCausalLM") | switches


LLAMA = Family(
    name="llama",
    model_types=("llama",),
    shape_of=shape_of,
    config_of=config_of,
    layout_of=layout_of,
    names=Names(rows=ROWS, ignored=IGNORED, prefixes=("model.", "")),
    prefix="model.",
)
