"""From a network to an ONNX model, without tracing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import torch

from export.emit import Emit
from export.folding import folded
from export.lowering import GROUPS, LOWERINGS
from export.lowering.network import answers_of, by_batch, states_of
from export.session import ANSWER
from export.target import Target
from export.values import Port, Value, build
from models.errors import Unsupported
from models.network import Network
from models.shape import BOX

IDS, MASK, KINDS, PIXELS = "input_ids", "attention_mask", "token_type_ids", "pixel_values"
LOGITS, BOXES, EMBEDDING = *ANSWER, "sentence_embedding"
STATES = "last_hidden_state"  # what sentence-transformers pools itself
SPAN = ("start", "end")  # labels whose logits Optimum and transformers.js read as an output each


def input_ports(network: Network) -> list[Port]:
    """Return the inputs of the network's graph: int64 (batch, time), or of one that reads images their normalised
    pixels, float32 (batch, channels, height, width).
    """
    image = network.shape.image
    if image is not None:
        return [Port(PIXELS, "float32", ("batch", image.channels, image.height, image.width))]
    names = [IDS, MASK, *([KINDS] if network.shape.type_vocab_size else [])]
    return [Port(name, "int64", ("batch", "time")) for name in names]


def output_ports(network: Network) -> list[Port]:
    """Return the outputs of the network's graph: logits (batch, labels), logits of tokens (batch, time, labels), of a
    span's ends also each by itself (batch, time), logits and boxes (batch, tokens, ...), embeddings (batch, width) and
    the states (batch, time, hidden) that they were made of or, without a head, these states alone.
    """
    shape = network.shape
    if shape.head is not None and shape.head.boxes:
        each: tuple[str | int, ...] = ("batch", shape.answers or 0)
        return [Port(LOGITS, "float32", (*each, shape.outputs - BOX)), Port(BOXES, "float32", (*each, BOX))]
    places = ("batch",) if shape.head is not None and not shape.answers_tokens else ("batch", "time")
    name = STATES if shape.head is None else LOGITS if shape.labels else EMBEDDING
    others = [Port(STATES, "float32", ("batch", "time", shape.hidden_size))] if name == EMBEDDING else []
    if _answers_spans(network):
        others = [Port(f"{end}_{LOGITS}", "float32", places) for end in SPAN]
    return [Port(name, "float32", (*places, shape.outputs)), *others]


def lower(network: Network, target: Target) -> onnx.ModelProto:
    """Return the checked ONNX model that computes `network.forward` in evaluation mode.

    Raises:
        Unsupported: a module has no ONNX form, or the network writes.
    """
    inputs = {port.name: Value(port) for port in input_ports(network)}
    outputs = outputs_for(network, target, inputs)
    return build(list(inputs.values()), outputs, opset=target.opset, name=network.shape.family)


def outputs_for(network: Network, target: Target, inputs: Mapping[str, Value]) -> dict[Port, Value]:
    """Return what the network's graph gives for values of its inputs, by their names.

    Raises:
        Unsupported: as `lower` raises.
    """
    if network.shape.output is not None:
        raise Unsupported("a model that writes has no ONNX form in one step", where=f"a {network.shape.family} model")
    mask, read = inputs.get(MASK), [value for name, value in inputs.items() if name != MASK]
    emit = Emit(target, LOWERINGS, GROUPS)
    with torch.no_grad():
        network = folded(network)
        states = states_of(network, emit, mask, *read)
        ports, answers = output_ports(network), answers_of(network, emit, states, mask)
        others = [by_batch(emit, states)] if ports[0].name == EMBEDDING else []
        if _answers_spans(network):
            others = [_one_label(emit, answers[0], number, end) for number, end in enumerate(SPAN)]
        return dict(zip(ports, (*answers, *others), strict=True))


def _answers_spans(network: Network) -> bool:
    return network.shape.labels == SPAN and network.shape.answers_tokens


def _one_label(emit: Emit, logits: Value, number: int, label: str) -> Value:
    """Return the logits (batch, time) of one label."""
    index = emit.constant(np.array(number, dtype=np.int64), f"{label}_number")
    return emit.node("Gather", logits, index, role=f"{label}_{LOGITS}", axis=2)
