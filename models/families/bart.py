"""BART (Lewis et al. 2020): an encoder and a decoder, normalised after each sublayer and after the embeddings."""

from __future__ import annotations

from typing import Any

from models.bart_stacks import IGNORED, WORD_ROWS, ZERO, bart_config, bart_shape, bias_axes, rows_without
from models.family import Config, Family
from models.kinds import Positions
from models.shape import ModelShape
from models.weights import Names


def shape_of(config: Config) -> ModelShape:
    """Return the shape of a BART config."""
    return bart_shape(config, family="bart", positions=Positions.LEARNED, pre_norm=False, embedding_norm=True)


def config_of(shape: ModelShape) -> dict[str, Any]:
    """Return the BART config of a shape whose layers are all alike in each stack."""
    return bart_config(shape, architecture="BartForConditionalGeneration")


BART = Family(
    name="bart",
    model_types=("bart",),
    shape_of=shape_of,
    config_of=config_of,
    axes_of=bias_axes,
    names=Names(rows=(*WORD_ROWS, *rows_without("final_norm")), ignored=IGNORED, zero=ZERO, prefixes=("model.", "")),
    prefix="model.",
)
