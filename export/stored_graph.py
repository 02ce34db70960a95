"""The nodes of a model file as ONNX Runtime hands them to its execution providers, with the types and shapes of all
values: what is in an `.ort` file, or what becomes of an `.onnx` file before it is divided among providers.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import onnx
import onnxruntime

from export.session import ERRORS_ONLY, open_session

ONNX_DOMAIN = "ai.onnx"


@final
@dataclass(frozen=True, slots=True)
class StoredValue:
    """A value's element type, and its axes: None where an axis is free, or for all of them where nothing is known."""

    dtype: str
    shape: tuple[int | None, ...] | None

    @property
    def fixed(self) -> bool:
        """Return whether all of its axes are known."""
        return self.shape is not None and None not in self.shape


@final
@dataclass(frozen=True, slots=True)
class StoredNode:
    """An operator, as `domain:name`, with the names of what it reads and gives; "" is an input that is left out."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return the operator without its domain."""
        return self.operator.rpartition(":")[2]


@final
@dataclass(frozen=True, slots=True)
class StoredGraph:
    """Nodes in the order they run; `constants` are the values that are weights."""

    nodes: tuple[StoredNode, ...]
    values: Mapping[str, StoredValue]
    constants: frozenset[str]


def stored_graphs(model: Path, sizes: Mapping[str, int]) -> list[StoredGraph]:
    """Return the graph of a model file, and behind it those of its branches; `sizes` are those of free axes that are
    fixed when an `.onnx` file is opened.

    Raises:
        BadFile: the runtime does not read the file.
    """
    open_session(model, threads=1)
    with quiet_tools():
        import onnxruntime.tools.ort_format_model  # noqa: F401  (it finds the next one)
        from ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

        data = model.read_bytes() if model.suffix == ".ort" else _as_stored(model, sizes)
        graph = InferenceSession.GetRootAsInferenceSession(bytearray(data), 0).Model().Graph()
        return list(_graphs(graph, {}, frozenset()))


def _as_stored(model: Path, sizes: Mapping[str, int]) -> bytes:
    """Return an `.onnx` model in the form of an `.ort` file, as far optimised as the runtime does before it divides."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.ort"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.add_session_config_entry("session.save_model_format", "ORT")
        options.log_severity_level = ERRORS_ONLY
        for name, size in sizes.items():
            options.add_free_dimension_override_by_name(name, size)
        onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        return path.read_bytes()


@contextmanager
def quiet_tools() -> Iterator[None]:
    """Undo what the import of ONNX Runtime's tools does to its process: it gives the root logger a handler, its own
    loggers the lowest level, and sys.path its own folder.
    """
    handlers, search_path = list(logging.root.handlers), list(sys.path)
    try:
        yield
    finally:
        logging.root.handlers[:] = handlers
        sys.path[:] = search_path


def _graphs(graph: Any, values: Mapping[str, StoredValue], constants: frozenset[str]) -> Iterator[StoredGraph]:
    """Yield a graph of the file and those of its branches, which also see the values and constants around them."""
    from ort_flatbuffers_py.fbs.AttributeType import AttributeType

    told = (graph.NodeArgs(index) for index in range(graph.NodeArgsLength()))
    values = {**values, **{one.Name().decode(): _value(one.Type()) for one in told if one.Type() is not None}}
    weights = (graph.Initializers(index) for index in range(graph.InitializersLength()))
    constants = constants | {weight.Name().decode() for weight in weights}
    stored = [graph.Nodes(index) for index in range(graph.NodesLength())]
    yield StoredGraph(tuple(map(_node, stored)), values, constants)
    for node in stored:
        for index in range(node.AttributesLength()):
            attribute = node.Attributes(index)
            if attribute.Type() == AttributeType.GRAPH:
                yield from _graphs(attribute.G(), values, constants)


def _node(node: Any) -> StoredNode:
    domain = (node.Domain() or b"").decode() or ONNX_DOMAIN
    inputs = tuple(node.Inputs(index).decode() for index in range(node.InputsLength()))
    outputs = tuple(node.Outputs(index).decode() for index in range(node.OutputsLength()))
    return StoredNode(f"{domain}:{node.OpType().decode()}", inputs, outputs)


def _value(told: Any) -> StoredValue:
    from ort_flatbuffers_py.fbs.DimensionValueType import DimensionValueType
    from ort_flatbuffers_py.fbs.TensorTypeAndShape import TensorTypeAndShape
    from ort_flatbuffers_py.fbs.TypeInfoValue import TypeInfoValue

    if told.ValueType() != TypeInfoValue.tensor_type:
        return StoredValue("no tensor", None)
    table, tensor = told.Value(), TensorTypeAndShape()
    tensor.Init(table.Bytes, table.Pos)
    dtype, shape = onnx.TensorProto.DataType.Name(tensor.ElemType()).lower(), tensor.Shape()
    if shape is None:
        return StoredValue(dtype, None)
    sizes = [shape.Dim(index).Value() for index in range(shape.DimLength())]
    known = [size is not None and size.DimType() == DimensionValueType.VALUE for size in sizes]
    return StoredValue(
        dtype, tuple(size.DimValue() if is_known else None for size, is_known in zip(sizes, known, strict=True))
    )
