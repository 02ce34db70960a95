"""mBART (Liu et al. 2020): BART, normalised before each sublayer and after the embeddings."""

from __future__ import annotations

from typing import Any

from models.bart_stacks import IGNORED, ROWS, WORD_ROWS, ZERO, bart_config, bart_shape, bias_axes
from models.family import Config, Family
from models.kinds import Positions
from models.shape import ModelShape
from models.weights import Names


def shape_of(config: Config) -> ModelShape:
    """Return the shape of an mBART config."""
    return bart_shape(config, family="mbart", positions=Positions.LEARNED, pre_norm=True, embedding_norm=True)


def config_of(shape: ModelShape) -> dict[str, Any]:
    """Return the mBART config of a shape whose layers are all alike in each stack."""
    return bart_config(shape, architecture="MBartForConditionalGeneration")


MBART = Family(
    name="mbart",
    model_types=("mbart",),
    shape_of=shape_of,
    config_of=config_of,
    axes_of=bias_axes,
    names=Names(rows=(*WORD_ROWS, *ROWS), ignored=IGNORED, zero=ZERO, prefixes=("model.", "")),
    prefix="model.",
)
