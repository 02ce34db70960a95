"""What a graph need not compute, because a weight that it has anyway can hold it.

A norm that only scales and shifts, behind the sum of what is kept and what a sublayer writes, is kept * weight plus
written * weight + bias, and the second part is what the sublayer's last linear layer writes with its rows scaled and
its bias changed: exact in float, and in int8 too, where the rows' scales are in float. A sublayer of which nothing is
left writes its bias alone, which what comes before it can add instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, final

from torch import Tensor, nn

from models.layers.embeddings import Embeddings
from models.layers.norm import ElementwiseNorm
from models.network import Block, Network


@final
@dataclass(frozen=True, eq=False)
class Folds:
    """By module path: what a linear layer's output is multiplied by (`scales`), what is added to the output of a linear
    layer or a norm then (`shifts`), and the sublayers that leave no node in the graph (`gone`).
    """

    scales: Mapping[str, Tensor] = field(default_factory=dict)
    shifts: Mapping[str, Tensor] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()

    def rows(self, path: str, rows: Tensor) -> Tensor:
        """Return the weight (out, in) of the linear layer at `path`, or the scales (out,) of its rows, as emitted."""
        scale = self.scales.get(path)
        return rows if scale is None else rows * scale.reshape(-1, *[1] * (rows.ndim - 1))

    def bias(self, path: str, bias: Tensor) -> Tensor:
        """Return the bias (out,) of the linear layer or norm at `path`, as emitted."""
        scale, shift = self.scales.get(path), self.shifts.get(path)
        scaled = bias if scale is None else bias * scale
        return scaled if shift is None else scaled + shift


class _Sublayer(NamedTuple):
    """Attention or an FFN: its path, its last linear layer's, and that one's bias where nothing else is left; and the
    norm that follows, with its path, where one does.
    """

    path: str
    writer: str
    left: Tensor | None
    norm: nn.Module | None
    norm_path: str


def folds_of(network: Network) -> Folds:
    """Return what the weights of a network's graph hold besides their own."""
    scales: dict[str, Tensor] = {}
    shifts: dict[str, Tensor] = {}
    gone: set[str] = set()
    before = _of_embeddings(network)  # what the stream was written by last, if that has a bias
    sublayers = list(_sublayers(network))
    for one in sublayers:
        if one.left is not None and before is not None:
            shifts[before] = shifts[before] + one.left if before in shifts else one.left
            gone.add(one.path)
        if one.norm is not None:
            before = one.norm_path if _shifts(one.norm) else None
        elif one.left is None:
            before = one.writer
    for one in sublayers:
        if isinstance(one.norm, ElementwiseNorm) and one.left is None:
            later = shifts.pop(one.norm_path, None)
            scales[one.writer] = one.norm.weight
            shifts[one.writer] = one.norm.bias if later is None else one.norm.bias + later
    return Folds(scales, shifts, frozenset(gone))


def _of_embeddings(network: Network) -> str | None:
    embeddings = network.embeddings
    if not isinstance(embeddings, Embeddings):
        return None
    if embeddings.projection is not None:
        return "embeddings.projection"
    return "embeddings.norm" if _shifts(embeddings.norm) else None


def _shifts(norm: nn.Module) -> bool:
    return isinstance(norm, (nn.LayerNorm, ElementwiseNorm))


def _sublayers(network: Network) -> Iterator[_Sublayer]:
    for index, block in enumerate(network.layers):
        assert isinstance(block, Block)
        for name, last, empty, norm in (
            ("attention", "output", block.attention.heads == 0, block.attention_norm),
            ("ffn", "down", block.ffn.width == 0, block.ffn_norm),
        ):
            path = f"layers.{index}.{name}"
            left = block.get_parameter(f"{name}.{last}.bias") if empty else None
            yield _Sublayer(path, f"{path}.{last}", left, None if block.pre_norm else norm, f"{path}_norm")
