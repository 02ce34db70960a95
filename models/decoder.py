"""What writes behind an encoder, and the walk of new tokens through the layers that write."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor, nn

from models.block import Block
from models.layers.cache import Cache, LayerCache, Reach
from models.layers.embeddings import Embeddings
from models.layers.norm import make_norm
from models.shape import ModelShape


class Decoder(nn.Module):
    """Embeddings of the words written so far, causal layers that read an encoder's states, and a norm where the
    network normalises before its sublayers.
    """

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        assert shape.decoder is not None
        self.embeddings = Embeddings(shape, reader=False)
        self.layers = nn.ModuleList(Block(shape, layer) for layer in shape.decoder.layers)
        self.final_norm = make_norm(shape.norm, shape.hidden_size, shape.norm_eps) if shape.pre_norm else None


class Written(NamedTuple):
    """States of new tokens (batch, new, hidden_size) after the embeddings and every layer, the last ones normalised,
    and what the next step needs.
    """

    states: tuple[Tensor, ...]
    cache: Cache


def walk(
    layers: Iterable[nn.Module],
    final_norm: nn.Module | None,
    embedded: Tensor,
    reach: Reach,
    *,
    cache: Cache | None,
    source: Tensor | None,
) -> Written:
    """Return what new tokens `embedded` (batch, new, hidden_size) become.

    `cache` is what the walk before returned; at the beginning it is None, and `source` (batch, source, hidden_size) are
    the states of an encoder, if there is one.
    """
    states, kept = [embedded], list[LayerCache]()
    for index, layer in enumerate(layers):
        assert isinstance(layer, Block)
        hidden, own = layer.step(states[-1], reach, cache[index] if cache else None, source)
        states.append(hidden)
        kept.append(own)
    if final_norm is not None:
        states[-1] = final_norm(states[-1])
    return Written(tuple(states), tuple(kept))
