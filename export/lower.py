"""From a network to an ONNX model, without tracing."""

from __future__ import annotations

import onnx
import torch

from export.emit import Emit
from export.folding import folds_of
from export.lowering import GROUPS, LOWERINGS
from export.lowering.network import answer_of, by_batch, states_of
from export.target import Target
from export.values import Port, Value, build
from models.network import Network

IDS, MASK, KINDS, PIXELS = "input_ids", "attention_mask", "token_type_ids", "pixel_values"
LOGITS, EMBEDDING, HIDDEN = "logits", "sentence_embedding", "hidden_states"
STATES = "last_hidden_state"  # what sentence-transformers pools itself


def input_ports(network: Network) -> list[Port]:
    """Return the inputs of the network's graph: int64 (batch, time), or of one that reads images their normalised
    pixels, float32 (batch, channels, height, width).
    """
    image = network.shape.image
    if image is not None:
        return [Port(PIXELS, "float32", ("batch", image.channels, image.height, image.width))]
    names = [IDS, MASK, *([KINDS] if network.shape.type_vocab_size else [])]
    return [Port(name, "int64", ("batch", "time")) for name in names]


def output_port(network: Network) -> Port:
    """Return the first output of the network's graph: logits (batch, labels), logits of tokens (batch, time, labels),
    embeddings (batch, width) or, without a head, hidden states.
    """
    shape = network.shape
    places = ("batch",) if shape.head is not None and not shape.answers_tokens else ("batch", "time")
    name = HIDDEN if shape.head is None else LOGITS if shape.labels else EMBEDDING
    return Port(name, "float32", (*places, shape.outputs))


def lower(network: Network, target: Target) -> onnx.ModelProto:
    """Return the checked ONNX model that computes `network.forward` in evaluation mode; where that is an embedding, its
    second output are the states (batch, time, hidden) that it was made of.

    Raises:
        Unsupported: a module has no ONNX form.
    """
    inputs = {port.name: Value(port) for port in input_ports(network)}
    mask, read = inputs.get(MASK), [value for name, value in inputs.items() if name != MASK]
    emit = Emit(target, LOWERINGS, GROUPS, folds=folds_of(network))
    with torch.no_grad():
        states = states_of(network, emit, mask, *read)
        outputs = {output_port(network): answer_of(network, emit, states, mask)}
        if output_port(network).name == EMBEDDING:
            outputs[Port(STATES, "float32", ("batch", "time", network.shape.hidden_size))] = by_batch(emit, states)
    return build(list(inputs.values()), outputs, opset=target.opset, name=network.shape.family)
