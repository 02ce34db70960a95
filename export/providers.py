"""Which nodes of a graph a phone's execution providers would take, in how many parts that cuts it, and what to do.

An estimate, from what ONNX Runtime says of itself: its lists for NNAPI and Core ML lie in its Python package
(`onnxruntime/tools/mobile_helpers`), those for XNNPACK and QNN are taken from its source (`xnnpack/math/matmul.cc`,
`gemm.cc` and `softmax.cc`, `qnn/builder/op_builder_factory.cc`), and so are the conditions, which its own checker does
not look at (`nnapi/.../base_op_builder.cc`, `gather_op_builder.cc`; `coreml/.../base_op_builder.cc`,
`cast_op_builder.cc`).
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, final

from export.stored_graph import ONNX_DOMAIN, StoredGraph, StoredNode, StoredValue, stored_graphs

Refuses = Callable[[StoredNode, StoredGraph], str | None]
_LISTS: Final = "onnxruntime.tools.mobile_helpers"
_ROW: Final = re.compile(r"^\|([\w.]+:\w+)\|", re.MULTILINE)
_FREE: Final = "a length that is not fixed"
# Shares of the nodes from which ONNX Runtime's own checker says yes, or perhaps.
_MOST, _HALF = 0.75, 0.5
_XNNPACK: Final = ("AveragePool", "Conv", "ConvTranspose", "Gemm", "MatMul", "MaxPool", "Resize", "Softmax")
_QNN: Final = (
    *("Abs", "Add", "And", "ArgMax", "ArgMin", "Asin", "Atan", "AveragePool", "BatchNormalization", "Cast", "Ceil"),
    *("Clip", "Concat", "Conv", "ConvTranspose", "Cos", "CumSum", "DepthToSpace", "DequantizeLinear", "Div", "Einsum"),
    *("Elu", "Equal", "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm"),
    *("GlobalAveragePool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample", "HardSigmoid", "HardSwish"),
    *("InstanceNormalization", "LRN", "LSTM", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log"),
    *("LogSoftmax", "LpNormalization", "MatMul", "Max", "MaxPool", "Mean", "Min", "Mod", "Mul", "Neg", "Not", "Or"),
    *("PRelu", "Pad", "Pow", "QuantizeLinear", "RMSNormalization", "Reciprocal", "ReduceL2", "ReduceMax", "ReduceMean"),
    *("ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Reshape", "Resize", "Round", "ScatterElements", "ScatterND"),
    *("Sigmoid", "Sign", "Sin", "Slice", "Softmax", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh"),
    *("ThresholdedRelu", "Tile", "TopK", "Transpose", "Unsqueeze", "Upsample", "Where"),
)
_LEVELS: Final = ("uint8", "int8")


@final
@dataclass(frozen=True, slots=True)
class Provider:
    """Who might run nodes: those of its `operators` that it does not `refuse` for what they read. A `device` of its own
    is reached by copying.
    """

    name: str
    operators: frozenset[str]
    refuses: Refuses
    device: bool = True


@final
@dataclass(frozen=True, slots=True)
class Share:
    """What a provider would take of a graph: how many of its `nodes`, in how many `parts`; `left` counts what stays on
    the processor by operator and reason.
    """

    provider: Provider
    nodes: int
    taken: int
    parts: int
    left: Counter[tuple[str, str]]

    @property
    def verdict(self) -> str:
        """Return in words what to do."""
        would = f"{self.provider.name} would run {self.taken} of {self.nodes} nodes"
        if not self.taken:
            return f"{would}: use the CPU provider{self._advice}."
        if not self.provider.device:
            return f"{would} on the same cores: measure it beside the CPU provider{self._advice}."
        parts = f"in {self.parts} part{'' if self.parts == 1 else 's'}"
        share = self.taken / self.nodes
        if self.parts == 1 and share > _MOST:
            return f"{would} {parts}: worth using."
        if (self.parts == 1 and share > _HALF) or (self.parts == 2 and share > _MOST):
            return f"{would} {parts}: measure it beside the CPU provider."
        copied = " with copies between them" if self.parts > 1 else ""
        return f"{would} {parts}{copied}: use the CPU provider{self._advice}."

    @property
    def _advice(self) -> str:
        free = sum(count for (_, why), count in self.left.items() if why == _FREE)
        return ", or export with fixed --lengths" if free > self.nodes / 4 else ""

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object, the verdict first."""
        rows = sorted(self.left.items(), key=lambda row: (-row[1], row[0]))
        left = [f"{count} {operator} ({why})" for (operator, why), count in rows]
        return {"verdict": self.verdict, "nodes": self.nodes, "taken": self.taken, "parts": self.parts, "left": left}


def shares_of(model: Path, sizes: Mapping[str, int] = MappingProxyType({})) -> list[Share]:
    """Return what each provider would take of a model file, its branches counted with it, where free axes are fixed to
    these `sizes`.

    Raises:
        BadFile: the runtime does not read the file.
    """
    graphs = stored_graphs(model, sizes)
    return [_share(provider, graphs) for provider in providers()]


def providers() -> tuple[Provider, ...]:
    """Return the providers that phones have."""
    return (
        Provider("NNAPI", _listed("nnapi_supported_ops.md"), _nnapi),
        Provider("Core ML", _listed("coreml_supported_mlprogram_ops.md"), _core_ml),
        Provider("QNN", _of_onnx(_QNN), _qnn),
        Provider("XNNPACK", _of_onnx(_XNNPACK), _xnnpack, device=False),
    )


def _listed(name: str) -> frozenset[str]:
    """Return the operators of a list that the installed runtime has."""
    spec = find_spec(_LISTS)
    assert spec is not None
    assert spec.origin is not None
    return frozenset(_ROW.findall((Path(spec.origin).parent / name).read_text(encoding="utf-8")))


def _of_onnx(names: Sequence[str]) -> frozenset[str]:
    return frozenset(f"{ONNX_DOMAIN}:{name}" for name in names)


def _share(provider: Provider, graphs: Sequence[StoredGraph]) -> Share:
    left: Counter[tuple[str, str]] = Counter()
    taken = parts = 0
    for graph in graphs:
        reasons = [_reason(provider, node, graph) for node in graph.nodes]
        left.update((node.name, why) for node, why in zip(graph.nodes, reasons, strict=True) if why is not None)
        taken += reasons.count(None)
        parts += _parts(graph, [why is None for why in reasons])
    return Share(provider, sum(len(graph.nodes) for graph in graphs), taken, parts, left)


def _reason(provider: Provider, node: StoredNode, graph: StoredGraph) -> str | None:
    if node.operator not in provider.operators:
        return f"no operator of {provider.name}"
    return provider.refuses(node, graph)


def _parts(graph: StoredGraph, takes: Sequence[bool]) -> int:
    """Return how many groups of nodes a provider gets that takes these: nodes run as soon as they can, and a group ends
    where nothing more can join it before the processor has to run (`partitioning_utils.cc`).
    """
    makers = {name: index for index, node in enumerate(graph.nodes) for name in node.outputs if name}
    before = [{makers[name] for name in node.inputs if name in makers} for node in graph.nodes]
    readers: list[list[int]] = [[] for _ in graph.nodes]
    for index, sources in enumerate(before):
        for source in sources:
            readers[source].append(index)
    waits = [len(sources) for sources in before]
    ready, later = deque(index for index, count in enumerate(waits) if not count), deque[int]()
    parts, border = 0, set[int]()
    grouped = False
    while ready or later:
        if not ready:
            ready, later = later, deque()
            parts, border, grouped = parts + grouped, set(), False
        index = ready.popleft()
        if not takes[index] and index in border:  # it reads what the group gives
            later.append(index)
            continue
        if takes[index]:
            grouped = True
            border.update(readers[index])
        for reader in readers[index]:
            waits[reader] -= 1
            if not waits[reader]:
                ready.append(reader)
    return parts + grouped


def _nnapi(node: StoredNode, graph: StoredGraph) -> str | None:
    free = _free(node, graph) or _too_many_axes(node, graph, 4)
    if free is not None:
        return free
    if node.name == "Gather" and not _constant(node, graph, 1) and _read(node, graph, 1).dtype != "int32":
        return f"its indices are {_read(node, graph, 1).dtype}"
    if node.name in ("QuantizeLinear", "DequantizeLinear") and not _constant(node, graph, 1):
        return "a scale that is not fixed"
    levels = node.name == "DequantizeLinear" or node.name.startswith("QLinear")
    return _of_type(node, graph, _LEVELS if levels else ("float",))


def _core_ml(node: StoredNode, graph: StoredGraph) -> str | None:
    axes = _too_many_axes(node, graph, 5)
    if axes is not None:
        return axes
    if node.name == "Gemm" and not _constant(node, graph, 1):
        return "weights that are not fixed"
    whole = ("int32", "int64", "bool") if node.name in ("Cast", "Shape") else ()
    return _of_type(node, graph, ("float", "float16", *whole))


def _qnn(node: StoredNode, graph: StoredGraph) -> str | None:
    return _free(node, graph)


def _xnnpack(node: StoredNode, graph: StoredGraph) -> str | None:
    shape = _read(node, graph, 0).shape
    if node.name == "Softmax":
        known = shape is not None and bool(shape) and shape[-1] is not None
        return _of_type(node, graph, ("float", "uint8")) if known else _FREE
    if node.name in ("MatMul", "Gemm"):
        if not _constant(node, graph, 1):
            return "weights that are not fixed"
        axes = _read(node, graph, 1).shape
        if shape is None or axes is None or len(axes) > 2 or len(shape) - len(axes) not in (0, 1):
            return "more axes than a product of matrices"
    return _of_type(node, graph, ("float",))


def _read(node: StoredNode, graph: StoredGraph, place: int) -> StoredValue:
    """Return what is known of an input."""
    name = node.inputs[place] if place < len(node.inputs) else ""
    return graph.values.get(name, StoredValue("unknown", None))


def _constant(node: StoredNode, graph: StoredGraph, place: int) -> bool:
    return place < len(node.inputs) and node.inputs[place] in graph.constants


def _of_type(node: StoredNode, graph: StoredGraph, types: Sequence[str]) -> str | None:
    dtype = _read(node, graph, 0).dtype
    return None if dtype in types else f"its input is {dtype}"


def _free(node: StoredNode, graph: StoredGraph) -> str | None:
    known = [_read(node, graph, place).fixed for place, name in enumerate(node.inputs) if name]
    return None if all(known) else _FREE


def _too_many_axes(node: StoredNode, graph: StoredGraph, most: int) -> str | None:
    shape = _read(node, graph, 0).shape
    return f"more than {most} axes" if shape is not None and len(shape) > most else None
