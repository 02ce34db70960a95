"""What a graph need not compute, because a weight that it has anyway can hold it.

A norm that only scales and shifts, behind the sum of what is kept and what a sublayer writes, is kept * weight plus
written * weight + bias, and the second part is what the sublayer's last linear layer writes with its rows scaled and
its bias changed: in float, and in int8 too, where the rows' scales are in float. A sublayer of which nothing is left
writes its bias alone, which what wrote the stream before it can add instead.
"""

from __future__ import annotations

from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.block import Block
from models.layers.embeddings import Embeddings
from models.layers.norm import ElementwiseNorm
from models.layers.patches import PatchEmbeddings
from models.layers.quantized import QuantizedLinear
from models.network import Network


class KeptScale(nn.Module):
    """What a folded norm leaves to compute: what is kept * weight, to which is added what its sublayer writes."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)


class _Holder(NamedTuple):
    """A weight of a module, something that is added to the whole stream."""

    module: nn.Module
    name: str


def folded(network: Network) -> Network:
    """Return a network that writes the same with fewer operators, as far as there are any to save; what it has in
    common with the given one it shares.
    """
    tensors = (*network.parameters(), *network.buffers())
    network = deepcopy(network, {id(one): one for one in tensors})
    _move_left_biases(network)
    for block in _blocks(network):
        if not block.pre_norm:
            _fold(block, "attention_norm", block.attention.output if block.attention.heads else None)
            _fold(block, "ffn_norm", block.ffn.down if block.ffn.width else None)
    return network


def _move_left_biases(network: Network) -> None:
    """Let what was added to the stream last add what sublayers without heads or neurons write, where it has a bias."""
    holder = _of_embeddings(network.embeddings)
    for block in _blocks(network):
        for writer, empty, norm in (
            (block.attention.output, block.attention.heads == 0, block.attention_norm),
            (block.ffn.down, block.ffn.width == 0, block.ffn_norm),
        ):
            own = _Holder(writer, "bias")
            if empty and holder is not None and writer.bias is not None:
                _set(holder, getattr(holder.module, holder.name) + writer.bias)
                _set(own, torch.zeros_like(writer.bias))
            if not block.pre_norm:
                holder = _shift_of(norm)
            elif not empty:
                holder = own if writer.bias is not None else None


def _fold(block: Block, name: str, writer: nn.Module | None) -> None:
    """Let the writer do its part of a norm that only scales and shifts."""
    norm = block.get_submodule(name)
    if not isinstance(norm, ElementwiseNorm) or not isinstance(writer, (nn.Linear, QuantizedLinear)):
        return
    if writer.bias is None:
        return
    rows = _Holder(writer, "weight_scale" if isinstance(writer, QuantizedLinear) else "weight")
    _set(rows, torch.einsum("r...,r->r...", getattr(writer, rows.name), norm.weight))
    _set(_Holder(writer, "bias"), writer.bias * norm.weight + norm.bias)
    block.set_submodule(name, KeptScale(norm.weight.detach()), strict=True)


def _of_embeddings(embeddings: nn.Module) -> _Holder | None:
    if isinstance(embeddings, PatchEmbeddings):
        return _Holder(embeddings.position, "weight")
    assert isinstance(embeddings, Embeddings)
    return _shift_of(embeddings.norm) if embeddings.projection is None else _Holder(embeddings.projection, "bias")


def _shift_of(norm: nn.Module | None) -> _Holder | None:
    return _Holder(norm, "bias") if isinstance(norm, (nn.LayerNorm, ElementwiseNorm)) else None


def _blocks(network: Network) -> list[Block]:
    return [block for block in network.layers if isinstance(block, Block)]


def _set(place: _Holder, value: Tensor) -> None:
    """Put a tensor of its own in place of one that the given network has too."""
    parameter = isinstance(getattr(place.module, place.name), nn.Parameter)
    setattr(place.module, place.name, nn.Parameter(value, requires_grad=False) if parameter else value)
