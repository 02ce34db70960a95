"""What the execution providers of phones would take of a graph, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from support.networks import quantized_network, random_network, tiny_shape

from export.graph_file import graph_file
from export.providers import Share, providers, shares_of
from export.stored_graph import stored_graphs
from export.target import MOBILE
from models.errors import BadFile
from models.kinds import Int8Form


def write(path: Path, nodes: list[onnx.NodeProto], *, length: int | str = 4, **weights: tuple[int, ...]) -> Path:
    """Write a model that reads x (1, length, 4) in float, and gives y."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, length, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [helper.make_tensor(name, TensorProto.FLOAT, dims, [0.5] * 16) for name, dims in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def by_name(shares: list[Share]) -> dict[str, Share]:
    return {share.provider.name: share for share in shares}


def chain(*operators: str) -> Iterator[onnx.NodeProto]:
    """Yield operators one behind another, from x to y."""
    names = ["x", *(f"v{index}" for index in range(len(operators) - 1)), "y"]
    for operator, read, given in zip(operators, names, names[1:], strict=False):
        yield helper.make_node(operator, [read], [given])


def test_a_whole_graph_is_worth_using(tmp_path: Path) -> None:
    shares = by_name(shares_of(write(tmp_path / "m.onnx", list(chain("Tanh", "Sigmoid", "Relu")))))
    assert shares["NNAPI"].verdict == "NNAPI would run 3 of 3 nodes in 1 part: worth using."
    assert (shares["Core ML"].taken, shares["QNN"].taken, shares["XNNPACK"].taken) == (3, 3, 0)
    assert shares["XNNPACK"].verdict == "XNNPACK would run 0 of 3 nodes: use the CPU provider."


def test_an_operator_between_cuts_the_graph(tmp_path: Path) -> None:
    shares = by_name(shares_of(write(tmp_path / "m.onnx", list(chain("Tanh", "Erf", "Sigmoid", "Erf", "Relu")))))
    nnapi = shares["NNAPI"]
    assert (nnapi.taken, nnapi.parts, dict(nnapi.left)) == (3, 3, {("Erf", "no operator of NNAPI"): 2})
    assert nnapi.verdict == "NNAPI would run 3 of 5 nodes in 3 parts with copies between them: use the CPU provider."
    assert shares["Core ML"].verdict == "Core ML would run 5 of 5 nodes in 1 part: worth using."
    assert nnapi.to_json()["left"] == ["2 Erf (no operator of NNAPI)"]


def test_branches_that_run_at_once_are_one_part(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Tanh", ["x"], ["a"]),
        helper.make_node("Erf", ["x"], ["b"]),
        helper.make_node("Relu", ["a"], ["c"]),
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    nnapi = by_name(shares_of(write(tmp_path / "m.onnx", nodes)))["NNAPI"]
    assert (nnapi.taken, nnapi.parts) == (3, 1)


def test_a_free_length_is_told(tmp_path: Path) -> None:
    shares = by_name(shares_of(write(tmp_path / "m.onnx", list(chain("Tanh", "Relu")), length="time")))
    assert shares["NNAPI"].verdict == (
        "NNAPI would run 0 of 2 nodes: use the CPU provider, or export with fixed --lengths."
    )
    assert shares["QNN"].taken == 0
    assert shares["Core ML"].taken == 2


def test_xnnpack_takes_products_with_weights_alone(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["a", "x"], ["y"]),
    ]
    share = by_name(shares_of(write(tmp_path / "m.onnx", nodes, w=(4, 4))))["XNNPACK"]
    assert (share.taken, dict(share.left)) == (1, {("MatMul", "weights that are not fixed"): 1})
    assert share.verdict == "XNNPACK would run 1 of 2 nodes on the same cores: measure it beside the CPU provider."


@pytest.mark.parametrize("form", [None, Int8Form.STATIC, Int8Form.DYNAMIC])
def test_every_node_of_a_phones_file_is_counted(form: Int8Form | None, tmp_path: Path) -> None:
    network = random_network(tiny_shape())
    network = network if form is None else quantized_network(network, form)
    path = tmp_path / "model.ort"
    path.write_bytes(graph_file(network, MOBILE).data)
    (graph,) = stored_graphs(path, {})
    shares = shares_of(path)
    assert [share.provider.name for share in shares] == ["NNAPI", "Core ML", "QNN", "XNNPACK"]
    for share in shares:
        assert share.nodes == len(graph.nodes) == share.taken + sum(share.left.values())
    assert by_name(shares)["NNAPI"].verdict.endswith("use the CPU provider, or export with fixed --lengths.")
    assert graph.values["input_ids"].shape == (None, None)
    assert graph.values["input_ids"].dtype == "int64"
    assert (by_name(shares)["XNNPACK"].taken > 1) is (form is None)


def test_the_runtimes_own_lists_are_read() -> None:
    known = {provider.name: provider.operators for provider in providers()}
    assert {"ai.onnx:MatMul", "ai.onnx:Softmax"} <= known["NNAPI"] & known["Core ML"] & known["QNN"] & known["XNNPACK"]
    assert "ai.onnx:LayerNormalization" in known["Core ML"] - known["NNAPI"]


def test_a_file_that_is_no_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.ort").write_bytes(b"nothing of a model")
    with pytest.raises(BadFile, match="does not read it"):
        shares_of(tmp_path / "model.ort")
