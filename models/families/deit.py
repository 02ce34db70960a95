"""DeiT (Touvron et al. 2021): ViT with a second learned token, whose own head is not read."""

from __future__ import annotations

from typing import Any

from models.family import Config, Family
from models.shape import ModelShape
from models.vit_encoder import IGNORED, ROWS, vit_axes, vit_config, vit_shape
from models.weights import Names, Row


def shape_of(config: Config) -> ModelShape:
    """Return the shape of a DeiT config."""
    return vit_shape(config, family="deit", prefix=2)


def config_of(shape: ModelShape) -> dict[str, Any]:
    """Return the DeiT config of a shape whose layers are all alike."""
    return vit_config(shape, architecture="DeiT")


DEIT = Family(
    name="deit",
    model_types=("deit",),
    shape_of=shape_of,
    config_of=config_of,
    names=Names(
        rows=(*ROWS, Row("embeddings.distillation_token", "embeddings.tokens.1.weight")),
        ignored=IGNORED,
        prefixes=("deit.", ""),
    ),
    prefix="deit.",
    axes_of=vit_axes,
)
