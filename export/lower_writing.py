"""From a network that writes to ONNX models: what reads for it, and what writes one step, or a whole prompt, at once.

A step is one graph for the first and for later ones: at the first, what was written before is empty. Names and axes are
those of Optimum and transformers.js.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import torch

from export.caches import (
    CACHED,
    ENCODED,
    IDS,
    KEPT,
    LOGITS,
    MASK,
    PLACES,
    SOURCE_MASK,
    STATES,
    CachePort,
    cache_ports,
)
from export.emit import Emit
from export.listed_words import listed_logits
from export.lowering import GROUPS, LOWERINGS
from export.lowering.blocked import blocked_words
from export.lowering.embeddings import scaled_states, written_embeddings
from export.lowering.network import by_batch, states_of
from export.lowering.quantized import quantized_words
from export.reach import Given, Reach
from export.step import Kept, Memory, Step, lower_step
from export.target import Target
from export.values import Port, Value, build
from models.block import Block
from models.errors import Unsupported
from models.kinds import Positions
from models.layers.blocked import BlockedEmbedding
from models.layers.embeddings import Embeddings
from models.layers.quantized import QuantizedEmbedding
from models.network import Network
from models.shape import ModelShape


def lower_encoder(network: Network, target: Target) -> onnx.ModelProto:
    """Return the checked ONNX model that computes `network.encode` in evaluation mode.

    Raises:
        Unsupported: a module has no ONNX form, or the network has no decoder.
    """
    if network.decoder is None:
        raise Unsupported("the model reads for no decoder", where=f"a {network.shape.family} model")
    ids, mask = (Value(Port(name, "int64", ("batch", "source"))) for name in (IDS, MASK))
    emit = Emit(target, LOWERINGS, GROUPS)
    with torch.no_grad():
        states = encoded_states(network, emit, mask, ids)
    encoded = Port(ENCODED, "float32", ("batch", "source", network.shape.hidden_size))
    return build([ids, mask], {encoded: states}, opset=target.opset, name=f"{network.shape.family}-encoder")


def encoded_states(network: Network, emit: Emit, mask: Value, ids: Value) -> Value:
    """Return an encoder's states (batch, source, hidden) of `ids` and their `mask`, both (batch, source)."""
    return by_batch(emit, states_of(network, emit, mask, ids))


def lower_writer(network: Network, target: Target) -> onnx.ModelProto:
    """Return the checked ONNX model that computes `network.decode` in evaluation mode: logits of the word behind every
    new token, or behind the last `num_logits_to_keep`, and the keys and values that the next step is given. Behind an
    encoder, its states are read where `use_cache_branch` is false, and else their keys and values.

    Raises:
        Unsupported: a module has no ONNX form, or the network writes nothing.
    """
    shape = network.shape
    if not shape.writing_layers:
        raise Unsupported("the model has no layer that writes", where=f"a {shape.family} model")
    given = {port.name: Value(port) for port in _inputs(shape)}
    emit = Emit(target, LOWERINGS, GROUPS)
    with torch.no_grad():
        outputs = _outputs(network, emit, given)
    return build(list(given.values()), outputs, opset=target.opset, name=f"{shape.family}-writer")


def _inputs(shape: ModelShape) -> list[Port]:
    behind, kept = shape.decoder is not None, Port(KEPT, "int64", (), default=0)
    ids = Port(IDS, "int64", ("batch", "new"))
    layers = cache_ports(shape)
    past = [_past(port) for layer in layers for port in layer if port is not None]
    if behind:
        mask = Port(SOURCE_MASK, "int64", ("batch", "source"))
        states = Port(STATES, "float32", ("batch", "states", shape.hidden_size))
        return [mask, ids, states, *past, Port(CACHED, "bool", (1,)), kept]
    placed = [Port(PLACES, "int64", ("batch", "new"))] if _has_places(shape) else []
    return [ids, Port(MASK, "int64", ("batch", "all")), *placed, *past, kept]


def _has_places(shape: ModelShape) -> bool:
    return shape.positions is not Positions.NONE or any(layer.rotary is not None for layer in shape.writing_layers)


def _past(port: CachePort) -> Port:
    return Port(port.past, "float32", ("batch", port.heads, "source" if port.cross else "past", port.head_size))


def _present(port: CachePort) -> Port:
    return Port(port.present, "float32", ("batch", port.heads, "source" if port.cross else "all", port.head_size))


def _outputs(network: Network, emit: Emit, given: dict[str, Value]) -> dict[Port, Value]:
    shape, layers = network.shape, cache_ports(network.shape)
    past = emit.node("Shape", given[layers[0].key.past], role="past", start=2, end=3)
    asked = Given(given[IDS], past, given.get(MASK), given.get(SOURCE_MASK), given.get(PLACES))
    reach = Reach(shape, emit, asked)
    read: list[tuple[Kept, Memory | None]] = []
    for ports in layers:
        memory = None
        if ports.cross_key is not None and ports.cross_value is not None:
            crossing = Kept(given[ports.cross_key.past], given[ports.cross_value.past])
            memory = Memory(given[STATES], given[CACHED], crossing)
        read.append((Kept(given[ports.key.past], given[ports.value.past]), memory))
    logits, steps = lower_tokens(network, emit, given[IDS], reach, read, given[KEPT])
    outputs = {Port(LOGITS, "float32", ("batch", "kept", shape.written_words)): logits}
    for ports, step in zip(layers, steps, strict=True):
        named = [_present(port) for port in ports if port is not None]
        outputs |= dict(zip(named, (*step.own, *(step.cross or ())), strict=True))
    return outputs


def lower_tokens(
    network: Network,
    emit: Emit,
    ids: Value,
    reach: Reach,
    read: Sequence[tuple[Kept, Memory | Kept | None]],
    kept: Value | None,
    listed: Value | None = None,
) -> tuple[Value, list[Step]]:
    """Return the logits (batch, kept, words) of the word behind the last `kept` (a number) of new tokens `ids` (batch,
    new), or behind every one, and the step of each layer, which reads what was kept of the tokens before and of an
    encoder's states. Logits are of all words, or of those `listed` (words,).
    """
    table = network.shape.written_table
    stack = emit if network.decoder is None else emit.at("decoder")
    part = network if network.decoder is None else network.decoder
    assert isinstance(part.embeddings, Embeddings)
    hidden = written_embeddings(part.embeddings, stack.at("embeddings"), emit.child(network, table, ids), reach)
    steps: list[Step] = []
    for index, (block, (past, memory)) in enumerate(zip(part.layers, read, strict=True)):
        assert isinstance(block, Block)
        steps.append(lower_step(block, stack.at(f"layers.{index}"), hidden, reach, past, memory))
        hidden = steps[-1].hidden
    hidden = hidden if kept is None else _last(emit, hidden, kept)
    if part.final_norm is not None:
        hidden = stack.child(part, "final_norm", hidden)
    if listed is not None:
        return listed_logits(network, emit, hidden, table, listed), steps
    return _words(network, emit, hidden, table), steps


def _last(emit: Emit, hidden: Value, kept: Value) -> Value:
    """Return the states of the last `kept` new tokens, or for 0 of all: minus nothing is the start."""
    count = emit.node("Unsqueeze", emit.node("Neg", kept, role="kept_behind"), emit.integers([0], "axis"), role="kept")
    end, axis = emit.integers([np.iinfo(np.int64).max], "end"), emit.integers([1], "time")
    return emit.node("Slice", hidden, count, end, axis, role="kept_states")


def _words(network: Network, emit: Emit, hidden: Value, table: str) -> Value:
    """Return logits (batch, new, words); `table` is the path of the word table that the writer reads.

    What writes with it reads its rows where they lie; of one in few bits as the runtime unpacks them, once.
    """
    output, module = network.output, network.get_submodule(table)
    assert output is not None
    if output.projection is not None:
        return emit.child(network, "output", hidden, None)
    if isinstance(module, QuantizedEmbedding):
        scaled = scaled_states(output, emit.at("output"), hidden)
        return quantized_words(module, emit.at("output"), scaled, output.bias)
    if isinstance(module, BlockedEmbedding):
        scaled = scaled_states(output, emit.at("output"), hidden)
        return blocked_words(module, emit.at("output"), scaled, output.bias)
    if isinstance(module, torch.nn.Embedding):
        return emit.child(network, "output", hidden, emit.at(table).constant(module.weight, "weight"))
    every = emit.constant(np.arange(network.shape.written_words, dtype=np.int64)[None], "every_word")
    rows = emit.child(network, table, every)
    return emit.child(
        network, "output", hidden, emit.node("Squeeze", rows, emit.integers([0], "one"), role="word_rows")
    )
