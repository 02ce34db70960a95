"""Which modules are put into int8, and the network with them in int8."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from compress.settings import QuantizeSettings
from models.checkpoint import Checkpoint
from models.errors import BadInput, nearest
from models.layers.quantized import ACTIVATION_LEVELS, quantize_weight
from models.network import Network
from models.shape import Int8Form

Range = tuple[float, float]


def linear_layers(network: Network) -> list[str]:
    """Return the paths of the linear layers that have weights, in the order of the network."""
    return [path for path, part in network.named_modules() if isinstance(part, nn.Linear) and part.weight.numel()]


def tables(network: Network) -> list[str]:
    """Return the paths of the embedding tables."""
    return [path for path, part in network.named_modules() if isinstance(part, nn.Embedding)]


def choose(network: Network, settings: QuantizeSettings) -> dict[str, Int8Form]:
    """Return the int8 form of every module that is quantized.

    Raises:
        BadInput: the network is quantized already, or a name in `keep_float` fits no linear layer.
    """
    if network.shape.int8:
        raise BadInput("the model is in int8 already", where="quantize", fix="Give the model it was made from.")
    layers = linear_layers(network)
    kept = {path for pattern in settings.keep_float for path in _matching(pattern, layers)}
    form = Int8Form.STATIC if settings.activations == "static" else Int8Form.DYNAMIC
    forms = {path: form for path in layers if path not in kept}
    return forms | (dict.fromkeys(tables(network), Int8Form.TABLE) if settings.embeddings else {})


def _matching(pattern: str, layers: list[str]) -> list[str]:
    found = [path for path in layers if fnmatchcase(path, pattern)]
    if not found:
        raise BadInput(
            f"{pattern!r} fits no linear layer",
            where="quantize.keep_float",
            fix=nearest(pattern, layers).strip() or f"Layers are named like {layers[0]}.",
        )
    return found


def quantize(
    checkpoint: Checkpoint, forms: Mapping[str, Int8Form], ranges: Mapping[str, Range] | None = None
) -> Checkpoint:
    """Return the checkpoint with these modules in int8.

    `ranges` holds the lowest and highest input of every statically quantized layer.

    Raises:
        BadInput: a static layer has no range.
    """
    weights = dict(checkpoint.weights)
    for path, form in forms.items():
        weights[f"{path}.weight"], weights[f"{path}.weight_scale"] = quantize_weight(weights[f"{path}.weight"])
        if form is Int8Form.STATIC:
            if ranges is None or path not in ranges:
                raise BadInput("has no calibrated range", where=path)
            weights[f"{path}.input_scale"], weights[f"{path}.input_zero_point"] = static_scale(ranges[path])
    return Checkpoint(checkpoint.shape.with_int8(dict(forms)), weights, checkpoint.tokenizing)


def static_scale(span: Range) -> tuple[Tensor, Tensor]:
    """Return the float32 scale and uint8 zero point of a range, which is first widened to hold zero."""
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    scale = torch.tensor((high - low) / ACTIVATION_LEVELS or 1.0, dtype=torch.float32)
    zero_point = torch.round(-low / scale).clamp(0, ACTIVATION_LEVELS).to(torch.uint8)
    return scale, zero_point
