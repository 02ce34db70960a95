"""ViT (Dosovitskiy et al. 2021): an encoder of the patches of an image, read at its class token."""

from __future__ import annotations

from typing import Any

from models.family import Config, Family
from models.shape import ModelShape
from models.vit_encoder import IGNORED, ROWS, vit_axes, vit_config, vit_shape
from models.weights import Names


def shape_of(config: Config) -> ModelShape:
    """Return the shape of a ViT config."""
    return vit_shape(config, family="vit", prefix=1)


def config_of(shape: ModelShape) -> dict[str, Any]:
    """Return the ViT config of a shape whose layers are all alike."""
    return vit_config(shape, architecture="ViT")


VIT = Family(
    name="vit",
    model_types=("vit",),
    shape_of=shape_of,
    config_of=config_of,
    names=Names(rows=ROWS, ignored=IGNORED, prefixes=("vit.", "")),
    prefix="vit.",
    axes_of=vit_axes,
)
