"""A narrower residual stream: the channels that matter least leave every weight that they run through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

import torch
import torch_pruning
from torch import Tensor, nn

from compress.curvature import curvature
from compress.pruning.compensation import updated
from compress.pruning.importance import Values
from compress.pruning.plan import top
from compress.pruning.surgery import dependencies
from models.checkpoint import Checkpoint
from models.encoded import Encoded
from models.errors import BadInput, Mismatch
from models.kinds import Positions
from models.network import Network
from models.progress import Progress, silent
from models.shape import ModelShape

STREAM = "stream"
# The layers of a head that are as wide as the stream, and what reads them.
READERS = {
    "head.dense": "head.output",
    **{f"head.{part}.first": f"head.{part}.second" for part in ("classes", "boxes")},
    **{f"head.{part}.second": f"head.{part}.output" for part in ("classes", "boxes")},
}
OUT, IN = 0, 1  # axes of a linear layer's weight

Cuts = dict[str, dict[int, str]]  # weight's name -> axis along which it is narrower -> whose channels run along it


@final
@dataclass(frozen=True, slots=True)
class Channels:
    """What is kept, ascending: channels of the residual stream, and as many outputs of each layer of the head that is
    as wide, by its path.
    """

    stream: tuple[int, ...]
    head: Mapping[str, tuple[int, ...]]

    @staticmethod
    def strongest(checkpoint: Checkpoint, scores: Values, count: int) -> Channels:
        """Return the `count` channels of the highest scores, and in the head the outputs of the largest |written| *
        |read|, the norms of the weights.

        Raises:
            BadInput: more channels than there are, or none.
        """
        size, weights = checkpoint.shape.hidden_size, checkpoint.weights
        if not 1 <= count <= size:
            raise BadInput(
                f"a student of {count} channels cannot be cut out of a teacher of {size}",
                where="student",
                fix=f"Ask for at most {size}, or give an architecture of its own.",
            )
        strength = {
            path: (weights[f"{path}.weight"].norm(dim=1) * weights[f"{reader}.weight"].norm(dim=0)).double().numpy()
            for path, reader in READERS.items()
            if f"{path}.weight" in weights
        }
        return Channels(top(scores, count), {path: top(values, count) for path, values in strength.items()})


def narrowed(
    checkpoint: Checkpoint,
    channels: Channels,
    data: Encoded,
    *,
    examples: int,
    seed: int,
    progress: Progress = silent,
) -> Checkpoint:
    """Return the checkpoint with these channels alone.

    What reads them is updated to write from them what comes nearest to what it wrote from all (compress.curvature), on
    up to `examples` rows of `data`. Norms then average over fewer channels: see teacher_student.norms.

    Raises:
        BadInput: a quantized model, or one of which `narrow_shape` says why not.
        Mismatch: the dependency graph leaves out a weight that must be cut, or cuts others.
    """
    network, cuts = checkpoint.network(), cuts_of(checkpoint)
    kept = {STREAM: list(channels.stream), **{path: list(outputs) for path, outputs in channels.head.items()}}
    linear = {path for path, module in network.named_modules() if isinstance(module, nn.Linear) and module.out_features}
    readers = {
        path: own[IN] for name, own in cuts.items() if (path := name.removesuffix(".weight")) in linear and IN in own
    }
    known = curvature(checkpoint, list(readers), data, examples=examples, seed=seed, progress=progress)
    weights: dict[str, Tensor] = dict(checkpoint.weights)
    for path, whose in readers.items():
        before = weights[f"{path}.weight"], weights[f"{path}.bias"]
        weights[f"{path}.weight"], weights[f"{path}.bias"] = updated(*before, kept[whose], known[path])
        del cuts[f"{path}.weight"][IN]
    for name, own in cuts.items():
        for axis, whose in own.items():
            weights[name] = weights[name].index_select(axis, torch.tensor(kept[whose])).contiguous()
    narrow = replace(checkpoint, shape=narrow_shape(checkpoint.shape, len(channels.stream)), weights=weights)
    narrow.network()  # loads strictly: every size is what the shape says
    return narrow


def narrow_shape(shape: ModelShape, hidden_size: int) -> ModelShape:
    """Return the shape with another width of the stream.

    Raises:
        BadInput: the answer is made of the stream alone, so that its directions are the answer's, or positions are
            computed for the width.
    """
    reason = None
    if shape.head is None or not shape.head.labels:
        reason = "what this model answers is read off its residual stream"
    elif shape.positions in (Positions.SINUSOIDAL, Positions.HALVES) and shape.embedding_size is None:
        reason = "this model's positions are sines of its own width"
    if reason is not None:
        raise BadInput(f"{reason}, so it cannot be narrowed", where="student", fix="Leave hidden_size out.")
    return replace(shape, hidden_size=hidden_size)


def cuts_of(checkpoint: Checkpoint) -> Cuts:
    """Return where a narrower network has its weights narrower.

    That is found by Torch-Pruning's dependency graph (Fang et al. 2023), and compared with the sizes of a network that
    is one channel narrower. Sublayers without heads or neurons are in no graph: theirs are the stream's by their sizes.
    Cutting is left to us: Torch-Pruning 1.6 keeps what it takes of a layer norm in the order of a Python set, which is
    not ascending where few channels are kept.

    Raises:
        BadInput: a quantized model, or one of which `narrow_shape` says why not.
        Mismatch: the graph leaves out a weight that must be cut, or holds another.
    """
    if checkpoint.shape.int8:
        raise BadInput("a quantized model cannot be narrowed", where="student", fix="Give the float model.")
    wanted, empty = _by_size(checkpoint.shape), _empty(checkpoint.shape)
    found = _by_graph(checkpoint.network())
    found |= {name: dict.fromkeys(axes, STREAM) for name, axes in wanted.items() if name.startswith(empty)}
    other = sorted(name for name in {*found, *wanted} if set(found.get(name, ())) != wanted.get(name, set()))
    if other:
        raise Mismatch(
            f"the dependency graph does not cut {other[0]} as a narrower network has it",
            where="student",
            fix="Use the torch-pruning version of constraints.txt.",
        )
    return found


def _by_size(shape: ModelShape) -> dict[str, set[int]]:
    """Return the axes along which the weights of a narrower network are narrower."""
    with torch.device("meta"):
        whole = Network(shape).state_dict()
        narrower = Network(narrow_shape(shape, shape.hidden_size - 1)).state_dict()
    axes = {
        name: {axis for axis, size in enumerate(value.shape) if size != narrower[name].shape[axis]}
        for name, value in whole.items()
    }
    return {name: own for name, own in axes.items() if own}


def _empty(shape: ModelShape) -> tuple[str, ...]:
    """Return how the names begin of what no graph holds: sublayers without units, and norms that only these read."""
    parts = ("", "_norm") if shape.pre_norm else ("",)
    return tuple(
        f"layers.{index}.{name}{part}."
        for index, layer in enumerate(shape.layers)
        for name, units in (("attention", layer.heads), ("ffn", layer.ffn))
        for part in parts
        if not units
    )


def _by_graph(network: Network) -> Cuts:
    modules = dict(network.named_modules())
    names = {id(module): name for name, module in modules.items()}
    names |= {id(parameter): name for name, parameter in network.named_parameters()}
    graph = dependencies(network)
    roots = {STREAM: _writer(network), **{path: modules[path] for path in READERS if path in modules}}
    cuts: Cuts = {}
    for whose, root in roots.items():
        remove = (
            torch_pruning.prune_linear_out_channels
            if isinstance(root, nn.Linear)
            else torch_pruning.prune_embedding_out_channels
        )
        for item in graph.get_pruning_group(root, remove, idxs=[0]):
            part = item.dep.target.module
            for name, axis in _axes(part, names.get(id(part), ""), item.dep.handler.__name__):
                cuts.setdefault(name, {})[axis] = whose
    return cuts


def _writer(network: Network) -> nn.Module:
    """Return a module that writes the stream: a sublayer's last, or the embeddings' where no sublayer has any units."""
    for index, layer in enumerate(network.shape.layers):
        if layer.heads or layer.ffn:
            return network.get_submodule(f"layers.{index}.{'attention.output' if layer.heads else 'ffn.down'}")
    parts = dict(network.embeddings.named_children())
    return parts["projection"] if isinstance(parts.get("projection"), nn.Linear) else parts["word"]


def _axes(part: object, path: str, handler: str) -> list[tuple[str, int]]:
    """Return the weights of a part of the graph that one of its handlers cuts, with the axes."""
    if isinstance(part, nn.Parameter):
        return [(path, part.ndim - 1)]
    if isinstance(part, nn.Embedding) or (isinstance(part, nn.Linear) and handler == "prune_in_channels"):
        return [(f"{path}.weight", IN)]
    return [(f"{path}.weight", OUT), (f"{path}.bias", OUT)] if isinstance(part, (nn.Linear, nn.LayerNorm)) else []
