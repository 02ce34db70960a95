"""A narrower residual stream: the channels that matter least leave every weight that they run through."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, final

import numpy as np
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
from models.network import Network
from models.progress import Progress, silent
from models.shape import ModelShape, Positions

DENSE = "head.dense"
IN = 1  # axis of a linear layer's weight that is read along


class Cut(NamedTuple):
    """The axis along which a weight is narrower, and whose channels run along it: "stream" or "dense", the outputs of
    the head's dense layer.
    """

    axis: int
    channels: str


@final
@dataclass(frozen=True, slots=True)
class Channels:
    """What is kept, ascending: channels of the residual stream, and as many outputs of the head's dense layer."""

    stream: tuple[int, ...]
    dense: tuple[int, ...]

    @staticmethod
    def strongest(checkpoint: Checkpoint, scores: Values, count: int) -> Channels:
        """Return the `count` channels of the highest scores, and the dense outputs that write and are read most, by the
        product of the norms.

        Raises:
            BadInput: more channels than there are, or none.
        """
        size = checkpoint.shape.hidden_size
        if not 1 <= count <= size:
            raise BadInput(
                f"a student of {count} channels cannot be cut out of a teacher of {size}",
                where="student",
                fix=f"Ask for at most {size}, or give an architecture of its own.",
            )
        weights = checkpoint.weights
        dense = np.arange(size, dtype=np.float64)[::-1]
        if f"{DENSE}.weight" in weights:
            written, read = weights[f"{DENSE}.weight"].norm(dim=1), weights["head.output.weight"].norm(dim=0)
            dense = (written * read).double().numpy()
        return Channels(top(scores, count), top(dense, count))


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
    cuts = cuts_of(checkpoint)
    kept = {"stream": list(channels.stream), "dense": list(channels.dense)}
    readers = {
        name.removesuffix(".weight"): cut.channels
        for name, own in cuts.items()
        for cut in own
        if cut.axis == IN and not name.startswith("embeddings.") and checkpoint.weights[name].numel()
    }
    known = curvature(checkpoint, list(readers), data, examples=examples, seed=seed, progress=progress)
    weights: dict[str, Tensor] = dict(checkpoint.weights)
    for path, inputs in readers.items():
        before = weights[f"{path}.weight"], weights[f"{path}.bias"]
        weights[f"{path}.weight"], weights[f"{path}.bias"] = updated(*before, kept[inputs], known[path])
    for name, own in cuts.items():
        for cut in own:
            if cut.axis != IN or name.removesuffix(".weight") not in readers:
                weights[name] = weights[name].index_select(cut.axis, torch.tensor(kept[cut.channels])).contiguous()
    narrow = Checkpoint(narrow_shape(checkpoint.shape, len(channels.stream)), weights, checkpoint.reader)
    narrow.network()  # loads strictly: every size is what the shape says
    return narrow


def narrow_shape(shape: ModelShape, hidden_size: int) -> ModelShape:
    """Return the shape with another width of the stream.

    Raises:
        BadInput: the answer is the stream itself, so that its width is the answer's, or positions are computed for the
            width.
    """
    reason = None
    if shape.head is None or not shape.head.labels:
        reason = "what this model answers is as wide as its residual stream"
    elif shape.positions is Positions.SINUSOIDAL and shape.embedding_size is None:
        reason = "this model's positions are sines of its own width"
    if reason is not None:
        raise BadInput(f"{reason}, so it cannot be narrowed", where="student", fix="Leave hidden_size out.")
    return replace(shape, hidden_size=hidden_size)


def cuts_of(checkpoint: Checkpoint) -> dict[str, list[Cut]]:
    """Return by name the weights that a narrower network has narrower, and where.

    They are found by Torch-Pruning's dependency graph (Fang et al. 2023), and compared with the sizes of a network that
    is one channel narrower. Sublayers without heads or neurons are in no graph; they are found by their sizes alone.
    Cutting is left to us: Torch-Pruning 1.6 keeps what it takes of a layer norm in the order of a Python set, which is
    not ascending where few channels are kept.

    Raises:
        BadInput: a quantized model, or one of which `narrow_shape` says why not.
        Mismatch: the graph leaves out a weight that must be cut, or holds another.
    """
    if checkpoint.shape.int8:
        raise BadInput("a quantized model cannot be narrowed", where="student", fix="Give the float model.")
    wanted = _by_size(checkpoint.shape)
    parts = ("", "_norm") if checkpoint.shape.pre_norm else ("",)  # a norm that nothing reads is in no graph either
    empty = tuple(
        f"layers.{index}.{name}{part}."
        for index, layer in enumerate(checkpoint.shape.layers)
        for name, units in (("attention", layer.heads), ("ffn", layer.ffn))
        for part in parts
        if not units
    )
    found = _by_graph(checkpoint.network()) | {name: cuts for name, cuts in wanted.items() if name.startswith(empty)}
    other = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    if other:
        raise Mismatch(
            f"the dependency graph does not cut {other[0]} as a narrower network has it",
            where="student",
            fix="Use the torch-pruning version of constraints.txt.",
        )
    return {name: sorted(cuts) for name, cuts in wanted.items()}


def _by_size(shape: ModelShape) -> dict[str, set[Cut]]:
    with torch.device("meta"):
        whole = Network(shape).state_dict()
        narrower = Network(narrow_shape(shape, shape.hidden_size - 1)).state_dict()
    dense = f"{DENSE}.weight" in whole
    cuts: dict[str, set[Cut]] = {}
    for name, value in whole.items():
        for axis, (size, less) in enumerate(zip(value.shape, narrower[name].shape, strict=True)):
            if size != less:
                behind = dense and name.startswith("head.") and (name, axis) != (f"{DENSE}.weight", IN)
                cuts.setdefault(name, set()).add(Cut(axis, "dense" if behind else "stream"))
    return cuts


def _by_graph(network: Network) -> dict[str, set[Cut]]:
    modules = {id(module): name for name, module in network.named_modules()}
    modules |= {id(parameter): name for name, parameter in network.named_parameters()}
    graph = dependencies(network)
    writer, dense = _writer(network), dict(network.named_modules()).get(DENSE)
    cuts: dict[str, set[Cut]] = {}
    for root, channels in ((writer, "stream"), (dense, "dense")):
        if root is None:
            continue
        remove = (
            torch_pruning.prune_linear_out_channels
            if isinstance(root, nn.Linear)
            else torch_pruning.prune_embedding_out_channels
        )
        for item in graph.get_pruning_group(root, remove, idxs=[0]):
            part = item.dep.target.module
            for name, axis in _axes(part, modules.get(id(part), ""), item.dep.handler.__name__):
                cuts.setdefault(name, set()).add(Cut(axis, channels))
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
    if isinstance(part, nn.Linear):
        return (
            [(f"{path}.weight", IN)] if handler == "prune_in_channels" else [(f"{path}.weight", 0), (f"{path}.bias", 0)]
        )
    if isinstance(part, nn.Embedding):
        return [(f"{path}.weight", 1)]
    if isinstance(part, nn.LayerNorm):
        return [(f"{path}.weight", 0), (f"{path}.bias", 0)]
    return [(path, part.ndim - 1)] if isinstance(part, nn.Parameter) else []
