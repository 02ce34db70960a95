"""Cutting heads and neurons out of a network: smaller matrices, the same function as the masked network."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch_pruning
from torch import Tensor, nn

from compress.pruning.plan import Plan
from models.checkpoint import Checkpoint
from models.errors import BadInput, Mismatch
from models.layers.attention import DistanceBias
from models.network import Network
from models.sublayers import Sublayer, features, sublayers_of

TRACED_TOKENS = 4
OUT, IN = 0, 1  # axes of a linear layer's weight


def prune(checkpoint: Checkpoint, plan: Plan) -> Checkpoint:
    """Return the checkpoint without the units that the plan leaves out; its float outputs are the masked model's.

    Which matrices a unit runs through is found by Torch-Pruning's dependency graph (Fang et al. 2023) and compared
    with what is cut. Not compared is what the graph cannot express: heads that share keys, whose features it takes for
    those of the same number, a sublayer that keeps nothing, and the biases for distances, of which each head has a
    column.

    Raises:
        BadInput: a quantized checkpoint, or a plan for another shape.
        Mismatch: the dependency graph couples other matrices than are cut.
    """
    if checkpoint.shape.int8:
        raise BadInput("a quantized model cannot be pruned", where="prune", fix="Prune first, quantize after.")
    shape = plan.shape_of(checkpoint.shape)
    if shape == checkpoint.shape:
        return checkpoint
    sublayers = [one for one in sublayers_of(checkpoint.shape) if len(plan.kept[one.path]) < one.units]
    network = checkpoint.network()
    graph = dependencies(network)
    for sublayer in sublayers:
        kept = plan.kept[sublayer.path]
        if kept and not sublayer.shares_keys:
            _compare(graph, network, sublayer, [unit for unit in range(sublayer.units) if unit not in set(kept)])
    weights = dict(checkpoint.weights)
    for sublayer in sublayers:
        weights |= _cut(weights, sublayer, plan.kept[sublayer.path])
    pruned = replace(checkpoint, shape=shape, weights=weights)
    pruned.network()  # loads strictly: every size is what the shape says
    return pruned


def dependencies(network: Network) -> torch_pruning.DependencyGraph:
    """Return Torch-Pruning's graph of which channels of which weights belong together (Fang et al. 2023)."""
    for module in network.modules():
        if isinstance(module, DistanceBias):  # heads are its columns, which the graph would take for channels
            module.weight.requires_grad = False
    # `features` computes every token in every layer: the graph then has no cut for the first token in it.
    return torch_pruning.DependencyGraph().build_dependency(
        network,
        example_inputs=network.sample(TRACED_TOKENS),
        forward_fn=lambda module, inputs: module.features(**inputs).logits,
        unwrapped_parameters=[],
        customized_pruners={},
        ignored_layers=[],
        ignored_params=[],
        verbose=False,
    )


def _compare(graph: torch_pruning.DependencyGraph, network: Network, sublayer: Sublayer, dropped: list[int]) -> None:
    """Raise Mismatch where the graph couples other matrices with these units than the sublayer's, or other channels."""
    channels = tuple(features(dropped, sublayer.width))
    writers = [network.get_submodule(path) for path, _ in sublayer.writers]
    group = graph.get_pruning_group(writers[0], torch_pruning.prune_linear_out_channels, idxs=list(channels))
    found = sorted(
        (id(item.dep.target.module), item.dep.handler.__name__, tuple(item.idxs))
        for item in group
        if isinstance(item.dep.target.module, nn.Linear)
    )
    wanted = sorted(
        [(id(module), "prune_out_channels", channels) for module in writers]
        + [(id(network.get_submodule(sublayer.reader)), "prune_in_channels", channels)]
    )
    if found != wanted:
        raise Mismatch(
            f"the dependency graph couples {len(found)} matrices, not the {len(wanted)} that must be cut",
            where="prune",
            fix="Use the torch-pruning version of constraints.txt.",
        )


def _cut(weights: dict[str, Tensor], sublayer: Sublayer, kept: tuple[int, ...]) -> dict[str, Tensor]:
    """Return the weights of a sublayer that keeps these units; the bias behind them stays as it is."""
    cuts = {
        f"{sublayer.reader}.weight": (IN, sublayer.width),
        f"{sublayer.path}.relative.weight": (IN, sublayer.columns),
    }
    for path, width in sublayer.writers:
        cuts |= {f"{path}.{kind}": (OUT, width) for kind in ("weight", "bias")}
    return {
        name: weights[name].index_select(axis, torch.tensor(features(kept, width), dtype=torch.int64)).contiguous()
        for name, (axis, width) in cuts.items()
        if name in weights
    }
