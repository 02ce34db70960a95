"""Tiny models of images: those of `transformers`, the oracle, and our own; drawn images, and files of them."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow
from support.networks import EVEN, random_network
from torch import Tensor
from transformers import (
    DeiTConfig,
    DeiTForImageClassification,
    DeiTModel,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
    YolosConfig,
    YolosForObjectDetection,
    YolosModel,
)

from models.checkpoint import Checkpoint
from models.imaging import Imaging, Pixels
from models.kinds import Activation, Reads
from models.shape import HeadShape, ImageShape, LayerShape, ModelShape

SIZES: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "image_size": 12,
    "patch_size": 4,
    "num_channels": 1,
}
CONFIGS = {"vit": ViTConfig, "deit": DeiTConfig, "yolos": YolosConfig}
CLASSIFIERS = {"vit": ViTForImageClassification, "deit": DeiTForImageClassification, "yolos": YolosForObjectDetection}
BARE = {"vit": ViTModel, "deit": DeiTModel, "yolos": YolosModel}
OF_FAMILY: dict[str, dict[str, Any]] = {"yolos": {"image_size": [12, 12], "num_detection_tokens": 5}}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit", {}),
    "vit in colour": ("vit", {"num_channels": 3, "num_labels": 5}),
    "vit of odd sizes": ("vit", {"image_size": 14, "patch_size": 5}),
    "vit, wide images": ("vit", {"image_size": [8, 20]}),
    "vit relu": ("vit", {"hidden_act": "relu", "layer_norm_eps": 1e-3}),
    "vit gelu_new, one head": ("vit", {"hidden_act": "gelu_new", "num_attention_heads": 1, "num_hidden_layers": 3}),
    "deit": ("deit", {}),
    "deit in colour": ("deit", {"num_channels": 3, "hidden_act": "gelu_pytorch_tanh", "num_labels": 4}),
    "yolos": ("yolos", {}),
    "yolos of wide images in colour": ("yolos", {"num_channels": 3, "num_labels": 5, "image_size": [8, 20]}),
    "yolos, places once": ("yolos", {"use_mid_position_embeddings": False, "image_size": [14, 14], "patch_size": 5}),
    "yolos of one layer and one token": ("yolos", {"num_hidden_layers": 1, "num_detection_tokens": 1}),
    "yolos of many layers": ("yolos", {"num_hidden_layers": 12, "hidden_act": "relu", "num_labels": 1}),
}
TINY = ImageShape(8, 8, 4, channels=1)
BOXES = HeadShape(("a", "b", "c"), Activation.RELU, 0.0, "object-detection", reads=Reads.SUFFIX, boxes=True)


def image_oracle(family: str, *, bare: bool = False, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """Return a `transformers` model whose every weight is drawn, norms and biases too."""
    torch.manual_seed(seed)
    kinds: dict[str, Any] = BARE if bare else CLASSIFIERS
    model: PreTrainedModel = kinds[family](CONFIGS[family](**{**SIZES, **OF_FAMILY.get(family, {}), **changes})).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            drawn = torch.randn(weight.shape) * 0.2
            weight.copy_(drawn + 1 if "norm" in name.lower() and name.endswith("weight") else drawn)
    return model


def answer_of(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """Return what the oracle answers as our networks do: the logits, and boxes behind them where there are any."""
    with torch.no_grad():
        outputs = model(**batch)
    return torch.cat([outputs[name] for name in ("logits", "pred_boxes") if name in outputs], dim=-1)


def imaging_of(config: Any) -> Imaging:
    """Return what a model with this config reads with."""
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return Imaging.of(ImageShape(height, width, config.patch_size, config.num_channels))


def saved(model: PreTrainedModel, directory: Path, **options: Any) -> Path:
    """Return `directory` after `transformers` saved the model there, with the settings of its images."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(directory, **options)
    imaging_of(model.config).save(directory)
    return directory


def pixel_batches(config: Any) -> list[dict[str, Tensor]]:
    """Return batches as a network takes them."""
    imaging = imaging_of(config)
    generator = torch.Generator().manual_seed(0)
    size = (imaging.channels, imaging.height, imaging.width)
    return [{"pixel_values": torch.randn((rows, *size), generator=generator)} for rows in (1, 4)]


def image_shape(layers: tuple[LayerShape, ...] = EVEN, *, image: ImageShape = TINY, **changes: Any) -> ModelShape:
    """Return a ViT of width 32 with 3 labels."""
    settings: dict[str, Any] = {
        "family": "vit",
        "vocab_size": 0,
        "hidden_size": 32,
        "max_positions": image.tokens,
        "pre_norm": True,
        "image": image,
        "head": HeadShape(("a", "b", "c"), dropout=0.0, task="image-classification", dense=False),
    }
    return ModelShape(layers=layers, **(settings | changes))


def image_checkpoint(layers: tuple[LayerShape, ...] = EVEN, *, seed: int = 0, **changes: Any) -> Checkpoint:
    """Return a random checkpoint that reads images of 8 x 8 grey pixels."""
    network = random_network(image_shape(layers, **changes), seed=seed)
    assert network.shape.image is not None
    return Checkpoint(network.shape, {}, Imaging.of(network.shape.image)).of(network)


def drawn(seed: int, *size: int) -> Pixels:
    """Return random pixels of this size."""
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def encoded(pixels: Pixels, form: str = "PNG") -> bytes:
    """Return the bytes of an image file with these pixels, (height, width) or (height, width, 3)."""
    stream = io.BytesIO()
    Pillow.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def write_images(folder: Path, *, rows: int, seed: int) -> str:
    """Write images of 9 x 7 grey pixels whose upper or lower half is bright, in folders of their classes."""
    draw = np.random.default_rng(seed)
    for row in range(rows):
        pixels = draw.integers(0, 90, (9, 7))
        kind = ("top", "bottom")[row % 2]
        pixels[slice(0, 4) if kind == "top" else slice(5, 9)] += 110
        (folder / kind).mkdir(parents=True, exist_ok=True)
        (folder / kind / f"{row}.png").write_bytes(encoded(pixels.astype(np.uint8)))
    return str(folder)
