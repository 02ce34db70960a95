"""Cutting heads and neurons out of a network: smaller matrices, the same function as the masked network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch_pruning
from torch import Tensor, nn

from compress.pruning.plan import Plan
from models.block import Block
from models.checkpoint import Checkpoint
from models.errors import BadInput, Mismatch
from models.layers.attention import Attention, DistanceBias
from models.layers.feedforward import FeedForward
from models.network import Network
from models.shape import ModelShape

TRACED_TOKENS = 4


def prune(checkpoint: Checkpoint, plan: Plan) -> Checkpoint:
    """Return the checkpoint without the units that the plan leaves out; its float outputs are the masked model's.

    Which matrices a unit runs through is found by Torch-Pruning's dependency graph (Fang et al. 2023) and compared
    with what must be cut. By hand are done what the graph cannot express, a sublayer that keeps nothing, and the biases
    for distances, of which each head has a column.

    Raises:
        BadInput: a quantized checkpoint, or a plan for another shape.
        Mismatch: the dependency graph couples other matrices than it must.
    """
    if checkpoint.shape.int8:
        raise BadInput("a quantized model cannot be pruned", where="prune", fix="Prune first, quantize after.")
    shape = plan.shape_of(checkpoint.shape)
    if shape == checkpoint.shape:
        return checkpoint
    network = checkpoint.network()
    graph = dependencies(network)
    by_hand: dict[str, Tensor] = {}
    for index, (layer, heads, neurons) in enumerate(
        zip(checkpoint.shape.layers, plan.heads, plan.neurons, strict=True)
    ):
        block = network.layers[index]
        assert isinstance(block, Block)
        dropped_heads = [unit for unit in range(layer.heads) if unit not in set(heads)]
        dropped = [neuron for neuron in range(layer.ffn) if neuron not in set(neurons)]
        if heads and dropped_heads:
            channels = [head * layer.head_size + place for head in dropped_heads for place in range(layer.head_size)]
            _cut_heads(graph, block.attention, channels)
        if neurons and dropped:
            _cut_neurons(graph, block.ffn, dropped)
        if block.attention.relative is not None:
            columns = block.attention.relative.weight.detach()[:, list(heads)]
            by_hand[f"layers.{index}.attention.relative.weight"] = columns.clone()
        by_hand |= _emptied(checkpoint.shape, index, heads=bool(heads), neurons=bool(neurons))
    weights = {name: value.detach().clone().contiguous() for name, value in network.state_dict().items()}
    pruned = replace(checkpoint, shape=shape, weights={**weights, **by_hand})
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


def _cut_heads(graph: torch_pruning.DependencyGraph, attention: Attention, channels: list[int]) -> None:
    sources = (attention.query, attention.key, attention.value)
    _cut(graph, sources, attention.output, channels)


def _cut_neurons(graph: torch_pruning.DependencyGraph, ffn: FeedForward, neurons: list[int]) -> None:
    _cut(graph, (ffn.up,) if ffn.gate is None else (ffn.up, ffn.gate), ffn.down, neurons)


def _cut(
    graph: torch_pruning.DependencyGraph, writers: Sequence[nn.Module], reader: nn.Module, channels: list[int]
) -> None:
    """Remove output channels of `writers` and the input channels of `reader` that belong to them.

    Raises:
        Mismatch: the group that the graph found is not exactly these modules on exactly these channels.
    """
    group = graph.get_pruning_group(writers[0], torch_pruning.prune_linear_out_channels, idxs=list(channels))
    found = sorted(
        (id(item.dep.target.module), item.dep.handler.__name__, tuple(item.idxs))
        for item in group
        if isinstance(item.dep.target.module, nn.Linear)
    )
    wanted = sorted(
        [(id(module), "prune_out_channels", tuple(channels)) for module in writers]
        + [(id(reader), "prune_in_channels", tuple(channels))]
    )
    if found != wanted:
        raise Mismatch(
            f"the dependency graph couples {len(found)} matrices, not the {len(wanted)} that must be cut",
            where="prune",
            fix="Use the torch-pruning version of constraints.txt.",
        )
    group.prune()


def _emptied(shape: ModelShape, index: int, *, heads: bool, neurons: bool) -> dict[str, Tensor]:
    """Return the weights of a layer's sublayers of which nothing is kept; their output biases stay as they are."""
    width, prefix = shape.hidden_size, f"layers.{index}"
    weights: dict[str, Tensor] = {}
    if not heads:
        for name in ("query", "key", "value"):
            weights[f"{prefix}.attention.{name}.weight"] = torch.zeros(0, width)
            weights[f"{prefix}.attention.{name}.bias"] = torch.zeros(0)
        weights[f"{prefix}.attention.output.weight"] = torch.zeros(width, 0)
    if not neurons:
        for name in ("up", "gate") if shape.gated else ("up",):
            weights[f"{prefix}.ffn.{name}.weight"] = torch.zeros(0, width)
            weights[f"{prefix}.ffn.{name}.bias"] = torch.zeros(0)
        weights[f"{prefix}.ffn.down.weight"] = torch.zeros(width, 0)
    return weights
