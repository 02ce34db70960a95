"""The encoder of images that ViT published and DeiT shares: its settings and its names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.bert_encoder import ACTIVATIONS, encoder_keys, even_layers
from models.errors import Unsupported
from models.family import IMAGES, Config, head_keys, image_keys, labels_of, task_of
from models.kinds import Activation, member
from models.shape import CLASSIFICATION, HeadShape, ImageShape, ModelShape
from models.weights import Row

ROWS = (
    Row("embeddings.cls_token", "embeddings.tokens.0.weight"),
    Row("embeddings.position_embeddings", "embeddings.position.weight"),
    Row("embeddings.patch_embeddings.projection.{p}", "embeddings.projection.{p}"),
    Row("encoder.layer.{i}.attention.attention.query.{p}", "layers.{i}.attention.query.{p}"),
    Row("encoder.layer.{i}.attention.attention.key.{p}", "layers.{i}.attention.key.{p}"),
    Row("encoder.layer.{i}.attention.attention.value.{p}", "layers.{i}.attention.value.{p}"),
    Row("encoder.layer.{i}.attention.output.dense.{p}", "layers.{i}.attention.output.{p}"),
    Row("encoder.layer.{i}.layernorm_before.{p}", "layers.{i}.attention_norm.{p}"),
    Row("encoder.layer.{i}.intermediate.dense.{p}", "layers.{i}.ffn.up.{p}"),
    Row("encoder.layer.{i}.output.dense.{p}", "layers.{i}.ffn.down.{p}"),
    Row("encoder.layer.{i}.layernorm_after.{p}", "layers.{i}.ffn_norm.{p}"),
    Row("layernorm.{p}", "final_norm.{p}"),
    Row("^classifier.{p}", "head.output.{p}", optional=True),
)
IGNORED = (r"(\w+\.)?pooler\..*", r"(\w+\.)?embeddings\.mask_token")


def vit_shape(config: Config, *, family: str, prefix: int, suffix: int = 0) -> ModelShape:
    """Return the shape of a config with ViT's keys; `prefix` learned tokens stand before the patches, and `suffix`
    behind them.

    Raises:
        Unsupported: projections without biases, patches that are no squares, or a head for another task.
        BadInput: a width that the heads do not divide, or an unknown activation.
    """
    if not config.get("qkv_bias", True):
        raise Unsupported("query, key and value without biases (qkv_bias)", where="config.json")
    height, width = _pair(config.get("image_size", 224))
    patch = _pair(config.get("patch_size", 16))
    if patch[0] != patch[1]:
        raise Unsupported(f"patches of {patch[0]} x {patch[1]} pixels, which are no squares", where="config.json")
    image = ImageShape(height, width, patch[0], int(config.get("num_channels", 3)), prefix, suffix)
    hidden = int(config["hidden_size"])
    return ModelShape(
        family=family,
        vocab_size=0,
        hidden_size=hidden,
        layers=even_layers(
            int(config["num_hidden_layers"]),
            hidden=hidden,
            heads=int(config["num_attention_heads"]),
            ffn=int(config["intermediate_size"]),
        ),
        max_positions=image.tokens,
        activation=member(Activation, str(config.get("hidden_act", "gelu")), ACTIVATIONS, where="config.json"),
        norm_eps=float(config.get("layer_norm_eps", 1e-12)),
        pre_norm=True,
        dropout=float(config.get("hidden_dropout_prob", 0.0)),
        attention_dropout=float(config.get("attention_probs_dropout_prob", 0.0)),
        initializer_range=float(config.get("initializer_range", 0.02)),
        head=_head(config),
        image=image,
    )


def _pair(value: Any) -> tuple[int, int]:
    """Return height and width of what is one number, or both."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        height, width = value
        return int(height), int(width)
    return int(value), int(value)


def _head(config: Config) -> HeadShape | None:
    names = [str(name) for name in config.get("architectures") or ()]
    if not any("ForImageClassification" in name for name in names):
        return None
    if any(name.endswith("WithTeacher") for name in names):
        raise Unsupported("a head that reads the distillation token", where="config.json")
    if config.get("problem_type") is not None and task_of(config) != CLASSIFICATION:
        raise Unsupported(f"problem_type {config['problem_type']!r} of images", where="config.json")
    return HeadShape(labels_of(config), dropout=0.0, task=IMAGES, dense=False)


def vit_config(shape: ModelShape, *, architecture: str) -> dict[str, Any]:
    """Return the config with ViT's keys of a shape whose layers are all alike.

    Raises:
        Unsupported: a network that reads no images, or an activation that the configs have no name for.
    """
    if shape.image is None:
        raise Unsupported(f"the {shape.family} format is one of images", where="this model")
    return {
        **encoder_keys(shape, architecture=architecture),
        **image_keys(shape.image),
        "encoder_stride": shape.image.patch,
        "qkv_bias": True,
        **(head_keys(shape.head) if shape.head else {}),
    }


def vit_axes(shape: ModelShape) -> Mapping[str, tuple[int, ...]]:
    """Return the axes that the format has for the class token, the places and the convolution."""
    image, width = shape.image, shape.hidden_size
    if image is None:
        return {}
    tokens = {f"embeddings.tokens.{number}.weight": (1, 1, width) for number in range(image.prefix)}
    behind = {"embeddings.suffix.weight": (1, image.suffix, width)} if image.suffix else {}
    return {
        **tokens,
        **behind,
        "embeddings.position.weight": (1, image.tokens, width),
        "embeddings.projection.weight": (width, image.channels, image.patch, image.patch),
    }
