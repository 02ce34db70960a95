"""From a network to an ONNX model, without tracing."""

from __future__ import annotations

import onnx
import torch

from export.emit import Emit
from export.lowering import GROUPS, LOWERINGS
from export.target import Target
from export.values import Port, Value, build
from models.network import Network

IDS, MASK, KINDS, LOGITS, HIDDEN = "input_ids", "attention_mask", "token_type_ids", "logits", "hidden_states"


def input_ports(network: Network) -> list[Port]:
    """Return the inputs of the network's graph, all int64 (batch, time)."""
    names = [IDS, MASK, *([KINDS] if network.shape.type_vocab_size else [])]
    return [Port(name, "int64", ("batch", "time")) for name in names]


def output_port(network: Network) -> Port:
    """Return the output of the network's graph: logits (batch, labels), logits of tokens (batch, time, labels) or,
    without a head, hidden states.
    """
    if network.head is not None:
        places = ("batch", "time") if network.shape.answers_tokens else ("batch",)
        return Port(LOGITS, "float32", (*places, len(network.shape.labels)))
    return Port(HIDDEN, "float32", ("batch", "time", network.shape.hidden_size))


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
