"""Graphs as immutable values: operators are nodes made by plain calls, and one `build` makes the protobuf.

The idea is spox's (Values carry where they come from; names are made last). A name is the module's path and the role
of the value in it (`layers.3/attention/scores`), and every node remembers the Python line that emitted it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.errors import Unsupported

Array = NDArray[Any]
Attribute = int | float | str | Sequence[int]
Dims = tuple[int | str, ...]

MICROSOFT = "com.microsoft"
# The oldest IR version that holds operator sets up to 17 (onnx/docs/Versioning.md).
IR_VERSION = 8
_OWN_FILES = ("export/values.py", "export/emit.py")


@final
@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of the graph: numpy dtype and dimensions, of which the free ones are names."""

    name: str
    dtype: str
    dims: Dims


@final
@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A weight or another array that the file holds."""

    array: Array
    path: str
    role: str


@final
@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operator call; `line` is the Python line that made it."""

    operator: str
    domain: str
    inputs: tuple[Value | None, ...]
    attributes: Mapping[str, Attribute]
    roles: tuple[str, ...]
    path: str
    line: str


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


def _ordered(outputs: Sequence[Value]) -> Iterator[Port | Constant | Node]:
    """Yield everything the outputs need, each after what it needs itself."""
    done: set[int] = set()
    stack: list[tuple[Port | Constant | Node, bool]] = [(value.origin, False) for value in reversed(outputs)]
    while stack:
        origin, ready = stack.pop()
        if id(origin) in done:
            continue
        if ready or not isinstance(origin, Node):
            done.add(id(origin))
            yield origin
            continue
        stack.append((origin, True))
        stack.extend((value.origin, False) for value in reversed(origin.inputs) if value is not None)


def build(inputs: Sequence[Value], outputs: Mapping[Port, Value], *, opset: int, name: str) -> onnx.ModelProto:
    """Return the checked model with these inputs, and these values as outputs.

    Raises:
        Unsupported: the graph is not valid ONNX; the message names the Python line of the node.
    """
    declared = [value.origin for value in inputs if isinstance(value.origin, Port)]
    names = _Names(taken={port.name for port in (*declared, *outputs)})
    known: dict[tuple[int, int], str] = {(id(port), 0): port.name for port in declared}
    results = {(id(value.origin), value.index): port.name for port, value in outputs.items()}
    stored: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    weights: list[TensorProto] = []
    lines: dict[str, str] = {}
    for origin in _ordered(list(outputs.values())):
        if isinstance(origin, Port):
            if (id(origin), 0) not in known:
                raise Unsupported(f"the graph reads {origin.name!r}, which is not among its inputs", where=name)
        elif isinstance(origin, Constant):
            known[id(origin), 0] = _store(origin, names, stored, weights)
        else:
            label = names.free(origin.path, f"{origin.roles[0]}:{origin.operator}")
            for index, role in enumerate(origin.roles):
                known[id(origin), index] = results.get((id(origin), index)) or names.free(origin.path, role)
            lines[label] = origin.line
            nodes.append(_node_proto(origin, label, known))
    domains = sorted({made.domain for made in nodes} | {""})
    model = helper.make_model(
        helper.make_graph(nodes, name, [_info(port) for port in declared], [_info(port) for port in outputs], weights),
        producer_name="compress-transformers",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid(domain, 1 if domain else opset) for domain in domains],
    )
    return _checked(model, lines)


def _store(origin: Constant, names: _Names, stored: dict[str, str], weights: list[TensorProto]) -> str:
    array = np.asarray(origin.array, order="C")
    key = sha256(f"{array.dtype}{array.shape}".encode())
    key.update(array.reshape(-1).view(np.uint8).data)
    if key.hexdigest() not in stored:
        stored[key.hexdigest()] = names.free(origin.path, origin.role)
        weights.append(numpy_helper.from_array(array, stored[key.hexdigest()]))
    return stored[key.hexdigest()]


def _node_proto(origin: Node, label: str, known: Mapping[tuple[int, int], str]) -> onnx.NodeProto:
    attributes: dict[str, Any] = dict(origin.attributes)
    return helper.make_node(
        origin.operator,
        ["" if value is None else known[id(value.origin), value.index] for value in origin.inputs],
        [known[id(origin), index] for index in range(len(origin.roles))],
        name=label,
        domain=origin.domain,
        **attributes,
    )


def _info(value: Port) -> onnx.ValueInfoProto:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
    return helper.make_tensor_value_info(value.name, element, list(value.dims))


def _checked(model: onnx.ModelProto, lines: Mapping[str, str]) -> onnx.ModelProto:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        text = str(error)
        where = next((f"{line} ({label})" for label, line in lines.items() if label in text), "emitted graph")
        raise Unsupported(f"the emitted graph is not valid ONNX: {text.splitlines()[0]}", where=where) from error
    return model
