"""YOLOS (Fang et al. 2021): ViT with learned tokens behind the patches, each of which finds an object or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.errors import Unsupported
from models.family import OBJECTS, Config, Family, labels_of
from models.kinds import Activation, Reads
from models.shape import HeadShape, ModelShape
from models.vit_encoder import IGNORED, ROWS, vit_axes, vit_config, vit_shape
from models.weights import Names, Row

PLACES = "encoder.mid_position_embeddings"
LINEAR = ("first", "second", "output")


def shape_of(config: Config) -> ModelShape:
    """Return the shape of a YOLOS config, which reads images of the config's size alone.

    Raises:
        Unsupported, BadInput: as `vit_shape` raises.
    """
    shape = vit_shape(config, family="yolos", prefix=1, suffix=int(config.get("num_detection_tokens", 100)))
    again = bool(config.get("use_mid_position_embeddings", True))
    layers = tuple(replace(layer, places=again and index > 0) for index, layer in enumerate(shape.layers))
    names = [str(name) for name in config.get("architectures") or ()]
    head = None
    if any(name.endswith("ForObjectDetection") for name in names):
        head = HeadShape(
            distinct(labels_of(config)), Activation.RELU, dropout=0.0, task=OBJECTS, reads=Reads.SUFFIX, boxes=True
        )
    return replace(shape, layers=layers, head=head)


def distinct(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the labels, those that were named before with their number: COCO leaves out numbers, as "N/A"."""
    return tuple(f"{label} ({number})" if label in labels[:number] else label for number, label in enumerate(labels))


def config_of(shape: ModelShape) -> dict[str, Any]:
    """Return the YOLOS config of a shape whose layers are all alike.

    Raises:
        Unsupported: a network that reads no images, or an activation that the configs have no name for.
    """
    config = vit_config(shape, architecture="Yolos")
    image = shape.image
    if image is None:
        raise Unsupported("the yolos format is one of images", where="this model")
    return config | {
        "image_size": [image.height, image.width],
        "num_detection_tokens": image.suffix,
        "use_mid_position_embeddings": shape.layers[-1].places,
    }


def axes_of(shape: ModelShape) -> Mapping[str, tuple[int, ...]]:
    """Return the axes that the format has for the tokens, the places and the convolution."""
    tokens, width = shape.max_positions, shape.hidden_size
    places = {
        f"layers.{index}.places.weight": (1, tokens, width) for index, layer in enumerate(shape.layers) if layer.places
    }
    return {**vit_axes(shape), **places}


YOLOS = Family(
    name="yolos",
    model_types=("yolos",),
    shape_of=shape_of,
    config_of=config_of,
    names=Names(
        rows=(
            *ROWS,
            Row("embeddings.detection_tokens", "embeddings.suffix.weight"),
            Row(f"{PLACES}.{{i}}", "layers.{i}.places.weight"),
            *(
                Row(f"^{theirs}.layers.{number}.{{p}}", f"head.{ours}.{name}.{{p}}", optional=True)
                for theirs, ours in (("class_labels_classifier", "classes"), ("bbox_predictor", "boxes"))
                for number, name in enumerate(LINEAR)
            ),
        ),
        ignored=IGNORED,
        stacked=((PLACES, 1),),  # what is added after a layer is read by the next one
        prefixes=("vit.", ""),
    ),
    prefix="vit.",
    axes_of=axes_of,
)
