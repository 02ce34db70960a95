"""The parts of a network that heads and neurons can be cut out of, and what a unit of each runs through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import final

from models.shape import LayerShape, ModelShape


class Part(str, Enum):
    """What a layer is made of, by the names of its modules: self-attention, attention to an encoder's states, FFN."""

    ATTENTION = "attention"
    CROSS = "cross"
    FFN = "ffn"


@final
@dataclass(frozen=True, slots=True)
class Sublayer:
    """A module at `path` of `units` that are kept or cut each for itself: heads of attention, or FFN neurons. Queries
    that share keys are one unit with these keys and their values.

    `writers` are the linear layers that write the units, each with the features that a unit has there; `reader` is the
    one that reads `width` features of every unit. So many `columns` of a table of biases for distances, where there is
    one, belong to a unit.
    """

    part: Part
    path: str
    units: int
    writers: tuple[tuple[str, int], ...]
    reader: str
    width: int
    columns: int = 0

    @property
    def layer(self) -> str:
        """Return the path of its layer."""
        return self.path.rpartition(".")[0]

    @property
    def stack(self) -> str:
        """Return the path of the layers that its layer is one of."""
        return self.layer.rpartition(".")[0]

    @property
    def shares_keys(self) -> bool:
        """Return whether a unit has more queries than keys."""
        return len({width for _, width in self.writers}) > 1


def sublayers_of(shape: ModelShape) -> tuple[Sublayer, ...]:
    """Return all sublayers: first those of self-attention, of what reads and then of what writes behind it, then those
    of cross-attention, then the FFNs.
    """
    layers = layers_by_path(shape).items()
    attention = [_attention(path, layer) for path, layer in layers]
    crossing = [_cross(path, layer) for path, layer in layers if layer.cross_heads is not None]
    return (*attention, *crossing, *(_ffn(path, layer, gated=shape.gated) for path, layer in layers))


def with_units(shape: ModelShape, units: Mapping[str, int]) -> ModelShape:
    """Return the shape with so many units in each sublayer, by its path."""
    layers = tuple(_with_units(path, layer, units) for path, layer in layers_by_path(shape).items())
    reading, writing = layers[: len(shape.layers)], layers[len(shape.layers) :]
    decoder = None if shape.decoder is None else replace(shape.decoder, layers=writing)
    return replace(shape, layers=reading, decoder=decoder)


def features(units: Sequence[int], width: int) -> list[int]:
    """Return the numbers of the features of these units, of which each has `width` behind one another."""
    return [unit * width + place for unit in units for place in range(width)]


def layers_by_path(shape: ModelShape) -> dict[str, LayerShape]:
    """Return every layer by its path, behind those that read those that write."""
    stacks = {"layers": shape.layers, "decoder.layers": () if shape.decoder is None else shape.decoder.layers}
    return {f"{path}.{index}": layer for path, layers in stacks.items() for index, layer in enumerate(layers)}


def _attention(layer_path: str, layer: LayerShape) -> Sublayer:
    path, size, each = f"{layer_path}.attention", layer.head_size, _queries(layer)
    writers = ((f"{path}.query", each * size), (f"{path}.key", size), (f"{path}.value", size))
    return Sublayer(Part.ATTENTION, path, layer.key_heads, writers, f"{path}.output", each * size, columns=each)


def _cross(layer_path: str, layer: LayerShape) -> Sublayer:
    path, size = f"{layer_path}.cross", layer.head_size
    writers = tuple((f"{path}.{name}", size) for name in ("query", "key", "value"))
    return Sublayer(Part.CROSS, path, layer.cross_heads or 0, writers, f"{path}.output", size)


def _ffn(layer_path: str, layer: LayerShape, *, gated: bool) -> Sublayer:
    path = f"{layer_path}.ffn"
    writers = tuple((f"{path}.{name}", 1) for name in (("up", "gate") if gated else ("up",)))
    return Sublayer(Part.FFN, path, layer.ffn, writers, f"{path}.down", 1)


def _queries(layer: LayerShape) -> int:
    """Return how many heads of queries each head of keys serves."""
    return layer.heads // layer.key_heads if layer.key_heads else 1


def _with_units(path: str, layer: LayerShape, units: Mapping[str, int]) -> LayerShape:
    groups = units[f"{path}.attention"]
    return replace(
        layer,
        heads=groups * _queries(layer),
        kv_heads=None if layer.kv_heads is None else groups,
        cross_heads=None if layer.cross_heads is None else units[f"{path}.cross"],
        ffn=units[f"{path}.ffn"],
    )
