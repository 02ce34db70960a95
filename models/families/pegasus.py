"""PEGASUS (Zhang et al. 2020): BART, normalised before each sublayer, with sinusoidal positions."""

from __future__ import annotations

from typing import Any

from models.bart_stacks import (
    COMPUTED_POSITIONS,
    IGNORED,
    WORD_ROWS,
    ZERO,
    bart_config,
    bart_shape,
    bias_axes,
    rows_without,
)
from models.family import Config, Family
from models.kinds import Positions
from models.shape import ModelShape
from models.weights import Names


def shape_of(config: Config) -> ModelShape:
    """Return the shape of a PEGASUS config."""
    return bart_shape(config, family="pegasus", positions=Positions.HALVES, pre_norm=True, embedding_norm=False)


def config_of(shape: ModelShape) -> dict[str, Any]:
    """Return the PEGASUS config of a shape whose layers are all alike in each stack."""
    return bart_config(shape, architecture="PegasusForConditionalGeneration")


PEGASUS = Family(
    name="pegasus",
    model_types=("pegasus",),
    shape_of=shape_of,
    config_of=config_of,
    axes_of=bias_axes,
    names=Names(
        rows=(*WORD_ROWS, *rows_without("embeddings.position", "embeddings.norm")),
        ignored=(*IGNORED, COMPUTED_POSITIONS),
        zero=ZERO,
        prefixes=("model.", ""),
    ),
    prefix="model.",
    # transformers takes them for new and untrained where a file lacks them.
    position_tables=("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight"),
    loaded_as=("mbart", "MBartForConditionalGeneration"),
)
