"""Text in, answer out: a network and its tokenizer as one graph."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import onnx

from export.emit import Emit
from export.lower import IDS, KINDS, LOGITS, MASK, outputs_for
from export.lowering import GROUPS, LOWERINGS
from export.target import CPU, Target
from export.text.byte_pairs import byte_pairs
from export.text.frame import Frame
from export.text.ports import LABEL, PAIR, PROBABILITIES, TEXT
from export.text.special_tokens import LEAVE_OUT
from export.text.word_pieces import word_pieces
from export.values import LEARNING, Port, Value, build
from models.errors import Unsupported
from models.network import Network
from models.shape import ModelShape
from models.tokenizing import Tokenizing

Cutter = Callable[[Emit, Value, Mapping[str, Any]], Value]
# How the models of a `tokenizer.json` cut a text into tokens, by their kinds.
CUTTERS: Final[Mapping[str, Cutter]] = {"BPE": byte_pairs, "WordPiece": word_pieces}
_PATH: Final = "tokenizer"


def require_text_in(shape: ModelShape, target: Target) -> None:
    """Raise Unsupported where a model or a target has no graph that takes texts."""
    reasons = {
        "a model of images reads no text": shape.image is not None,
        "a model that writes is run token by token, and its tokenizer once": shape.output is not None,
        "a model whose answers are places in its text needs the tokenizer behind the graph too": shape.answers_tokens,
        "a model without a head gives no answer": shape.head is None,
        f"the target {target.name} has no operators that read texts": target != CPU,
    }
    for reason, holds in reasons.items():
        if holds:
            raise Unsupported(reason, where="export.text_in", fix=LEAVE_OUT)


def text_graph(
    network: Network, target: Target, tokenizing: Tokenizing, *, paired: bool, classes: bool
) -> onnx.ModelProto:
    """Return the model that answers one text (1,), or where `paired` two: what the network gives, and where its labels
    are `classes` of which one is right, the label and the probabilities too.

    Raises:
        Unsupported: the network, the target or the tokenizer has no such graph.
    """
    require_text_in(network.shape, target)
    ports = text_ports(paired=paired)
    emit = Emit(target, LOWERINGS, GROUPS)
    read = _read(emit.at(_PATH), tokenizing, ports, positions=network.shape.usable_positions)
    inputs = {name: value for name, value in read.items() if name != KINDS or network.shape.type_vocab_size}
    outputs = outputs_for(network, target, inputs)
    if classes:
        outputs |= _choice(emit.at("answer"), outputs, network.shape.labels)
    return build([Value(port) for port in ports], outputs, opset=target.opset, name=network.shape.family)


def tokens_graph(tokenizing: Tokenizing, *, paired: bool, positions: int) -> onnx.ModelProto:
    """Return the front of such a model alone: from one text, or two, to what a network reads.

    Raises:
        Unsupported: the tokenizer has no such graph.
    """
    ports = text_ports(paired=paired)
    read = _read(Emit(CPU, LOWERINGS, GROUPS).at(_PATH), tokenizing, ports, positions=positions)
    outputs = {Port(name, "int64", (1, "time")): read[name] for name in (IDS, KINDS)}
    return build([Value(port) for port in ports], outputs, opset=CPU.opset, name=_PATH)


def text_ports(*, paired: bool) -> list[Port]:
    """Return the inputs of a graph that takes texts."""
    return [Port(name, "object", (1,)) for name in (TEXT, *([PAIR] if paired else []))]


def _read(emit: Emit, tokenizing: Tokenizing, ports: Sequence[Port], *, positions: int) -> dict[str, Value]:
    """Return the inputs of a network, by name, for texts."""
    content = json.loads(tokenizing.json)
    kind = str(content["model"].get("type"))
    if kind not in CUTTERS:
        raise Unsupported(
            f"a {kind} tokenizer has no form in a graph",
            where="tokenizer.json",
            fix=f"{LEAVE_OUT} It knows {', '.join(sorted(CUTTERS))}.",
        )
    frame = Frame.of(tokenizing, paired=len(ports) == 2, positions=positions)
    ids, types = frame.around(emit, [CUTTERS[kind](emit.at(port.name), Value(port), content) for port in ports])
    ones = emit.node("Expand", emit.integers([1], "one"), emit.node("Shape", ids, role="shape"), role=MASK)
    return {IDS: ids, MASK: ones, KINDS: types}


def _choice(emit: Emit, outputs: Mapping[Port, Value], labels: Sequence[str]) -> dict[Port, Value]:
    logits = next(value for port, value in outputs.items() if port.name == LOGITS)
    (label,) = emit.of_domain(
        LEARNING,
        "LabelEncoder",
        emit.node("ArgMax", logits, role="number", axis=1, keepdims=0),
        roles=(LABEL,),
        keys_int64s=list(range(len(labels))),
        values_strings=list(labels),
    )
    shares = emit.node("Softmax", logits, role=PROBABILITIES, axis=1)
    return {Port(LABEL, "object", (1,)): label, Port(PROBABILITIES, "float32", (1, len(labels))): shares}
