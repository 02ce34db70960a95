"""Mistral (Jiang et al. 2023): Llama, whose layers may read a window alone. Texts as long as the window read it all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from models.family import Config, Family
from models.kinds import Biases
from models.llama_stack import IGNORED, ROWS, llama_config, llama_shape
from models.shape import ModelShape
from models.weights import Names


def shape_of(config: Config) -> ModelShape:
    """Return the shape of a Mistral config, with as many positions as a window has tokens."""
    shape = llama_shape(config, family="mistral", biases=Biases.NONE)
    window = config.get("sliding_window") or shape.max_positions
    return replace(shape, max_positions=min(int(window), shape.max_positions))


def config_of(shape: ModelShape) -> dict[str, Any]:
    """Return the Mistral config of a shape whose layers are all alike."""
    return llama_config(shape, architecture="MistralForCausalLM") | {"sliding_window": None}


MISTRAL = Family(
    name="mistral",
    model_types=("mistral",),
    shape_of=shape_of,
    config_of=config_of,
    names=Names(rows=ROWS, ignored=IGNORED, prefixes=("model.", "")),
    prefix="model.",
)
