"""From a network to an ONNX model, without tracing."""

from __future__ import annotations

import onnx
import torch

from export.emit import Emit
from export.lowering import GROUPS, LOWERINGS
from export.target import Target
from export.values import Port, Value, build
from models.network import Network

IDS, MASK, KINDS = "input_ids", "attention_mask", "token_type_ids"
LOGITS, EMBEDDING, HIDDEN = "logits", "sentence_embedding", "hidden_states"


def input_ports(network: Network) -> list[Port]:
    """Return the inputs of the network's graph, all int64 (batch, time)."""
    names = [IDS, MASK, *([KINDS] if network.shape.type_vocab_size else [])]
    return [Port(name, "int64", ("batch", "time")) for name in names]


def output_port(network: Network) -> Port:
    """Return the output of the network's graph: logits (batch, labels), logits of tokens (batch, time, labels),
    embeddings (batch, width) or, without a head, hidden states.
    """
    shape = network.shape
    places = ("batch",) if shape.head is not None and not shape.answers_tokens else ("batch", "time")
    name = HIDDEN if shape.head is None else LOGITS if shape.labels else EMBEDDING
    return Port(name, "float32", (*places, shape.outputs))


def lower(network: Network, target: Target) -> onnx.ModelProto:
    """Return the checked ONNX model that computes `network.forward` in evaluation mode.

    Raises:
        Unsupported: a module has no ONNX form.
    """
    inputs = [Value(port) for port in input_ports(network)]
    kinds = inputs[2] if len(inputs) == 3 else None
    with torch.no_grad():
        output = LOWERINGS[Network](network, Emit(target, LOWERINGS, GROUPS), inputs[0], inputs[1], kinds)
    return build(inputs, {output_port(network): output}, opset=target.opset, name=network.shape.family)
