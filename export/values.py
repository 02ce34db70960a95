"""Graphs as immutable values: operators are nodes made by plain calls, and one `build` makes the protobuf.

The idea is spox's (Values carry where they come from; names are made last). A name is the module's path and the role
of the value in it (`layers.3/attention/scores`), and every node remembers the Python line that emitted it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, NamedTuple, final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.errors import Unsupported

Array = NDArray[Any]
Attribute = int | float | str | Sequence[int] | Sequence[str]
Dims = tuple[int | str, ...]

MICROSOFT = "com.microsoft"
LEARNING = "ai.onnx.ml"  # the standard's own, of classical learning: tables of texts and numbers
CONTRIB = "ai.onnx.contrib"  # onnxruntime-extensions
_VERSIONS = {MICROSOFT: 1, LEARNING: 2, CONTRIB: 1}
# The oldest IR version that holds operator sets up to 17 (onnx/docs/Versioning.md).
IR_VERSION = 8
_OWN_FILES = ("export/values.py", "export/emit.py")


@final
@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of the graph: numpy dtype and dimensions, of which the free ones are names. An input without
    dimensions may have a `default`, so that callers need not know of it.
    """

    name: str
    dtype: str
    dims: Dims
    default: int | None = None


@final
@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A weight or another array that the file holds."""

    array: Array
    path: str
    role: str


@final
@dataclass(frozen=True, slots=True, eq=False)
class Inner:
    """A graph in a node: what it is given, and what it gives, each with its numpy dtype."""

    gives: tuple[tuple[str, Value], ...]
    takes: tuple[Port, ...] = ()

    @property
    def outputs(self) -> list[Value]:
        """Return the values that it gives."""
        return [value for _, value in self.gives]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operator call; `line` is the Python line that made it.

    An operator that chooses or repeats has `branches`: attribute -> the graph in it. What they need is computed in the
    branch alone, except for the values `outside`.
    """

    operator: str
    domain: str
    inputs: tuple[Value | None, ...]
    attributes: Mapping[str, Attribute]
    roles: tuple[str, ...]
    path: str
    line: str
    branches: Mapping[str, Inner] = field(default_factory=dict)
    outside: tuple[Value, ...] = ()

    @property
    def needs(self) -> tuple[Value, ...]:
        """Return the values that are computed before it."""
        return (*(value for value in self.inputs if value is not None), *self.outside)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A tensor of the graph: an input, a constant, or output `index` of a node."""

    origin: Port | Constant | Node
    index: int = 0


def graph_input(name: str, dtype: str, dims: Dims) -> Value:
    """Return an input of the graph."""
    return Value(Port(name, dtype, dims))


def constant(array: Array, *, path: str, role: str) -> Value:
    """Return a constant; equal arrays are stored once."""
    return Value(Constant(array, path, role))


def node(
    operator: str,
    inputs: Sequence[Value | None],
    *,
    domain: str = "",
    attributes: Mapping[str, Attribute],
    roles: tuple[str, ...],
    path: str,
) -> tuple[Value, ...]:
    """Return the outputs of a new node, one for every role."""
    made = Node(operator, domain, tuple(inputs), dict(attributes), roles, path, _calling_line())
    return tuple(Value(made, index) for index in range(len(roles)))


def whole(parts: Sequence[Value]) -> Value | None:
    """Return what a Split took apart into these parts and no others, in their order, if one did."""
    origin = parts[0].origin
    if not isinstance(origin, Node) or origin.operator != "Split" or len(origin.roles) != len(parts):
        return None
    in_order = all(part.origin is origin and part.index == place for place, part in enumerate(parts))
    return origin.inputs[0] if in_order else None


def either(
    condition: Value,
    then: Sequence[Value],
    otherwise: Sequence[Value],
    *,
    outside: Sequence[Value],
    roles: tuple[str, ...],
    path: str,
) -> tuple[Value, ...]:
    """Return what one of two branches gives, float32, one for every role. Each is the output of a node of the branch's
    own; what both need, and what is needed elsewhere, is named as `outside`.
    """
    parts = {"then_branch": then, "else_branch": otherwise}
    branches = {name: Inner(tuple(("float32", value) for value in values)) for name, values in parts.items()}
    made = Node("If", "", (condition,), {}, roles, path, _calling_line(), branches, tuple(outside))
    return tuple(Value(made, index) for index in range(len(roles)))


class Carried(NamedTuple):
    """What one round of a loop hands to the next: what the first round is given, the port by which a round is given it,
    and what the round makes of it, by a node of its own.
    """

    first: Value
    given: Value
    made: Value


def loop(
    most: Value, going: Value, carried: Sequence[Carried], *, number: Value, role: str, path: str
) -> tuple[Value, ...]:
    """Return what the last round of a loop hands on. There are `most` rounds (a number), or fewer where a round finds
    `going` to be false; a round is given its `number` from 0 on by that port.

    A value that needs nothing of what a round is given is computed once, before the loop.
    """
    takes = [value.origin for value in (number, *(one.given for one in carried))]
    ports = [port for port in takes if isinstance(port, Port)]
    before = Port("going_before", "bool", ())
    made = [("bool", going), *((port.dtype, one.made) for port, one in zip(ports[1:], carried, strict=True))]
    body = Inner(tuple(made), (ports[0], before, *ports[1:]))
    roles = tuple(f"{role}_{port.name}" for port in ports[1:])
    inputs = (most, None, *(one.first for one in carried))
    node = Node("Loop", "", inputs, {}, roles, path, _calling_line(), {"body": body}, _unmoved(body))
    return tuple(Value(node, index) for index in range(len(roles)))


def _unmoved(body: Inner) -> tuple[Value, ...]:
    """Return the values that the nodes of a body read and that need nothing of what it is given."""
    moved = {id(port) for port in body.takes}
    read: dict[tuple[int, int], Value] = {}
    for origin in _ordered(body.outputs, {}):
        if isinstance(origin, Node) and any(id(value.origin) in moved for value in origin.needs):
            moved.add(id(origin))
            read |= {(id(value.origin), value.index): value for value in origin.needs}
    return tuple(value for value in read.values() if isinstance(value.origin, Node) and id(value.origin) not in moved)


def _calling_line() -> str:
    """Return `file:line` of the nearest caller outside this module and the emitter."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.replace("\\", "/").endswith(_OWN_FILES):
        frame = frame.f_back
    parts = frame.f_code.co_filename.replace("\\", "/").split("/")
    return f"{'/'.join(parts[-3:])}:{frame.f_lineno}"


def scope(path: str) -> str:
    """Return a module path as the front of a name: `layers.3.attention` -> `layers.3/attention`."""
    return re.sub(r"\.(?!\d)", "/", path)


@dataclass
class _Names:
    """Names given so far; a taken name gets a number."""

    taken: set[str] = field(default_factory=set)

    def free(self, path: str, role: str) -> str:
        wanted = f"{scope(path)}/{role}" if path else role
        name, number = wanted, 2
        while name in self.taken:
            name, number = f"{wanted}_{number}", number + 1
        self.taken.add(name)
        return name


_Known = dict[tuple[int, int], str]


def _ordered(outputs: Sequence[Value], known: _Known) -> Iterator[Port | Constant | Node]:
    """Yield everything the outputs need and is not known, each after what it needs itself."""
    done: set[int] = set()
    stack: list[tuple[Port | Constant | Node, bool]] = [(value.origin, False) for value in reversed(outputs)]
    while stack:
        origin, ready = stack.pop()
        if id(origin) in done or (id(origin), 0) in known:
            continue
        if ready or not isinstance(origin, Node):
            done.add(id(origin))
            yield origin
            continue
        stack.append((origin, True))
        stack.extend((value.origin, False) for value in reversed(origin.needs))


@dataclass
class _Writing:
    """A graph that is being written: its weights are in one place, its nodes may be in branches."""

    name: str
    names: _Names
    weights: list[TensorProto] = field(default_factory=list)
    stored: dict[str, str] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)
    domains: set[str] = field(default_factory=lambda: {""})

    def nodes(self, outputs: Sequence[Value], known: _Known, results: _Known) -> list[onnx.NodeProto]:
        """Return the nodes that the outputs need, and add the names of all that is computed to `known`."""
        nodes: list[onnx.NodeProto] = []
        for origin in _ordered(outputs, known):
            if isinstance(origin, Port):
                raise Unsupported(f"the graph reads {origin.name!r}, which is not among its inputs", where=self.name)
            if isinstance(origin, Constant):
                known[id(origin), 0] = _store(origin, self.names, self.stored, self.weights)
                continue
            label = self.names.free(origin.path, f"{origin.roles[0]}:{origin.operator}")
            branches = {name: self.branch(label, inner, known) for name, inner in origin.branches.items()}
            for index, role in enumerate(origin.roles):
                known[id(origin), index] = results.get((id(origin), index)) or self.names.free(origin.path, role)
            self.lines[label] = origin.line
            self.domains.add(origin.domain)
            nodes.append(_node_proto(origin, label, known, branches))
        return nodes

    def branch(self, label: str, inner: Inner, known: _Known) -> onnx.GraphProto:
        """Return the graph of a branch, which may read what is known outside."""
        names = {id(port): self.names.free("", f"{label}/{port.name}") for port in inner.takes}
        within = {**known, **{(port, 0): name for port, name in names.items()}}
        nodes = self.nodes(inner.outputs, within, {})
        takes = [_info(replace(port, name=names[id(port)])) for port in inner.takes]
        gives = [
            helper.make_tensor_value_info(within[id(value.origin), value.index], _element(dtype), None)
            for dtype, value in inner.gives
        ]
        return helper.make_graph(nodes, self.names.free("", f"{label}/branch"), takes, gives)


def build(inputs: Sequence[Value], outputs: Mapping[Port, Value], *, opset: int, name: str) -> onnx.ModelProto:
    """Return the checked model with these inputs, and these values as outputs.

    Raises:
        Unsupported: the graph is not valid ONNX; the message names the Python line of the node.
    """
    declared = [value.origin for value in inputs if isinstance(value.origin, Port)]
    writing = _Writing(name, _Names(taken={port.name for port in (*declared, *outputs)}))
    known: _Known = {(id(port), 0): port.name for port in declared}
    results = {(id(value.origin), value.index): port.name for port, value in outputs.items()}
    nodes = writing.nodes(list(outputs.values()), known, results)
    for port in declared:
        if port.default is not None:
            writing.weights.append(numpy_helper.from_array(np.array(port.default, dtype=port.dtype), port.name))
    infos = [_info(port) for port in declared], [_info(port) for port in outputs]
    model = helper.make_model(
        helper.make_graph(nodes, name, *infos, writing.weights),
        producer_name="compress-transformers",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid(domain, _VERSIONS.get(domain, opset)) for domain in sorted(writing.domains)],
    )
    return _checked(model, writing.lines)


def _store(origin: Constant, names: _Names, stored: dict[str, str], weights: list[TensorProto]) -> str:
    array = np.asarray(origin.array, order="C")
    key = sha256(f"{array.dtype}{array.shape}".encode())
    key.update(array.reshape(-1).view(np.uint8).data)
    if key.hexdigest() not in stored:
        stored[key.hexdigest()] = names.free(origin.path, origin.role)
        weights.append(numpy_helper.from_array(array, stored[key.hexdigest()]))
    return stored[key.hexdigest()]


def _node_proto(
    origin: Node, label: str, known: Mapping[tuple[int, int], str], branches: Mapping[str, onnx.GraphProto]
) -> onnx.NodeProto:
    attributes: dict[str, Any] = {**origin.attributes, **branches}
    return helper.make_node(
        origin.operator,
        ["" if value is None else known[id(value.origin), value.index] for value in origin.inputs],
        [known[id(origin), index] for index in range(len(origin.roles))],
        name=label,
        domain=origin.domain,
        **attributes,
    )


def _info(value: Port) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(value.name, _element(value.dtype), list(value.dims))


def _element(dtype: str) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def _checked(model: onnx.ModelProto, lines: Mapping[str, str]) -> onnx.ModelProto:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        text = str(error)
        where = next((f"{line} ({label})" for label, line in lines.items() if label in text), "emitted graph")
        raise Unsupported(f"the emitted graph is not valid ONNX: {text.splitlines()[0]}", where=where) from error
    return model
