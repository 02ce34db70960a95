"""What one shape has otherwise than another, in words."""

from __future__ import annotations

from dataclasses import fields
from enum import Enum

from models.shape import HeadShape, LayerShape, ModelShape

SHOWN = 4  # differences that are named
_NAMES = {
    "ffn": "FFN neurons",
    "head_size": "size of a head",
    "vocab_size": "pieces of the vocabulary",
    "max_positions": "positions",
    "positions": "kind of positions",
    "relative": "bias for distances",
    "gated": "gates of the FFN",
    "linear": "linear attention",
    "rotary": "base of turned features",
    "normed": "norm",
    "reads": "what is read",
}


def differences(shape: ModelShape, other: ModelShape) -> str:
    """Return in words what the shape has otherwise than `other`: of layers the first that differs, in each respect."""
    found: list[str] = []
    if shape.int8 != other.int8:
        found.append(f"{len(shape.int8)} of its modules are in int8")
    if len(shape.layers) != len(other.layers):
        found.append(f"{len(shape.layers)} layers instead of {len(other.layers)}")
    respects: dict[str, str] = {}
    for number, (ours, theirs) in enumerate(zip(shape.layers, other.layers, strict=False)):
        for name, words in _unlike(ours, theirs).items():
            respects.setdefault(name, f"layer {number} has {words}")
    found += respects.values()
    if (shape.head is None) != (other.head is None):
        found.append("a head" if other.head is None else "no head")
    elif shape.head is not None and other.head is not None:
        found += [f"the head has {words}" for words in _unlike(shape.head, other.head).values()]
    apart = {"int8", "layers", "head"}
    found += [words for name, words in _unlike(shape, other).items() if name not in apart]
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(found[:SHOWN]) + more


def uneven(shape: ModelShape) -> str | None:
    """Return in words that the layers are not all of one size, where they are not."""
    first = shape.layers[0]
    for number, layer in enumerate(shape.layers):
        if (layer.heads, layer.head_size, layer.ffn) != (first.heads, first.head_size, first.ffn):
            return f"layer 0 has {_size(first)}, and layer {number} has {_size(layer)}"
    return None


def _size(layer: LayerShape) -> str:
    return f"{layer.heads} heads of {layer.head_size} and {layer.ffn} FFN neurons"


def _unlike(ours: ModelShape | LayerShape | HeadShape, theirs: ModelShape | LayerShape | HeadShape) -> dict[str, str]:
    """Return, by field, what it is and what it is not, where they differ."""
    pairs = {one.name: (getattr(ours, one.name), getattr(theirs, one.name)) for one in fields(ours)}
    return {
        name: f"{_NAMES.get(name, name.replace('_', ' '))} {_plain(one)} instead of {_plain(other)}"
        for name, (one, other) in pairs.items()
        if one != other
    }


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value.value if isinstance(value, Enum) else value)
