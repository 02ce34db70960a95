"""Names of what a step of writing keeps for the next, as Optimum and transformers.js have them. Knows no torch."""

from __future__ import annotations

from typing import Final, NamedTuple, final

from models.shape import ModelShape

IDS: Final = "input_ids"
MASK: Final = "attention_mask"
PLACES: Final = "position_ids"
STATES: Final = "encoder_hidden_states"
SOURCE_MASK: Final = "encoder_attention_mask"
CACHED: Final = "use_cache_branch"
KEPT: Final = "num_logits_to_keep"  # the last of so many new tokens have logits; 0 and by default: all
LOGITS: Final = "logits"
ENCODED: Final = "last_hidden_state"
# Of a graph that searches by itself.
MOST: Final = "max_tokens"
SEQUENCES: Final = "sequences"
SCORES: Final = "scores"


@final
class CachePort(NamedTuple):
    """Keys or values of a layer: what they are called as an input and as an output, and their heads and sizes. `cross`
    are those of an encoder's states, which are computed once.
    """

    past: str
    present: str
    heads: int
    head_size: int
    cross: bool


@final
class LayerPorts(NamedTuple):
    """What a layer keeps: of the tokens written so far, and of an encoder's states where it reads them."""

    key: CachePort
    value: CachePort
    cross_key: CachePort | None = None
    cross_value: CachePort | None = None


def cache_ports(shape: ModelShape) -> list[LayerPorts]:
    """Return the caches of every layer that writes. A layer without heads keeps an empty one, which has the length of
    the others; no keys of an encoder's states are kept where no head reads them.
    """
    found = []
    for index, layer in enumerate(shape.writing_layers):
        part = "" if shape.decoder is None else ".decoder"
        own = [_port(index, f"{part}.{kind}", layer.key_heads, layer.head_size) for kind in ("key", "value")]
        crossing: list[CachePort] = []
        if layer.cross_heads:
            crossing = [
                _port(index, f".encoder.{kind}", layer.cross_heads, layer.head_size) for kind in ("key", "value")
            ]
        found.append(LayerPorts(*own, *crossing))
    return found


def _port(index: int, name: str, heads: int, head_size: int) -> CachePort:
    cross = name.startswith(".encoder")
    return CachePort(f"past_key_values.{index}{name}", f"present.{index}{name}", heads, head_size, cross)
