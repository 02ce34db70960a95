"""Qwen2 (Yang et al. 2024): Llama with biases of queries, keys and values."""

from __future__ import annotations

from typing import Any

from models.errors import Unsupported
from models.family import Config, Family
from models.kinds import Biases
from models.llama_stack import IGNORED, ROWS, llama_config, llama_shape
from models.shape import ModelShape
from models.weights import Names


def shape_of(config: Config) -> ModelShape:
    """Return the shape of a Qwen2 config.

    Raises:
        Unsupported: layers that read a window alone.
    """
    kinds = config.get("layer_types") or ()
    if config.get("use_sliding_window") or any(kind != "full_attention" for kind in kinds):
        raise Unsupported("a causal layer that reads a window", where="config.json")
    return llama_shape(config, family="qwen2", biases=Biases.READING)


def config_of(shape: ModelShape) -> dict[str, Any]:
    """Return the Qwen2 config of a shape whose layers are all alike."""
    return llama_config(shape, architecture="Qwen2ForCausalLM") | {"use_sliding_window": False}


QWEN2 = Family(
    name="qwen2",
    model_types=("qwen2",),
    shape_of=shape_of,
    config_of=config_of,
    names=Names(rows=ROWS, ignored=IGNORED, prefixes=("model.", "")),
    prefix="model.",
)
