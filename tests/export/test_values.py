from __future__ import annotations

import numpy as np
import onnx
import pytest

from export.emit import Emit
from export.lowering import GROUPS, LOWERINGS
from export.session import open_session
from export.target import CPU
from export.values import Carried, Port, Value, build, scope, whole
from models.errors import Unsupported

X = Port("x", "float32", ("batch", 2))
Y = Port("y", "float32", ("batch", 2))


def emitter(path: str = "layers.3.attention") -> Emit:
    return Emit(CPU, LOWERINGS, GROUPS, path)


def test_names_come_from_module_paths_and_roles() -> None:
    x, emit = Value(X), emitter()
    once = emit.node("Relu", x, role="scores")
    twice = emit.node("Relu", once, role="scores")
    model = build([x], {Y: emit.node("Neg", twice, role="anything")}, opset=17, name="g")
    assert [node.output[0] for node in model.graph.node] == [
        "layers.3/attention/scores",
        "layers.3/attention/scores_2",
        "y",
    ]
    assert scope("layers.10.attention.query") == "layers.10/attention/query"


def test_all_parts_of_a_split_in_order_are_what_was_split() -> None:
    x, emit = Value(X), emitter()
    first, second = emit.nodes("Split", x, roles=("first", "second"), axis=1)
    assert whole([first, second]) is x
    for parts in ([second, first], [first], [first, first], [x, second], [emit.node("Neg", x, role="neg")]):
        assert whole(parts) is None


def test_equal_constants_are_stored_once_and_others_apart() -> None:
    x, emit = Value(X), emitter("")
    same = [emit.constant(np.ones(2, dtype=np.float32), name) for name in ("one", "uno")]
    other = [emit.constant(np.ones((1, 2), dtype=np.float32), "row"), emit.constant(np.zeros(2, np.float32), "zero")]
    model = build([x], {Y: emit.node("Sum", x, *same, *other, role="sum")}, opset=17, name="g")
    assert [weight.name for weight in model.graph.initializer] == ["one", "row", "zero"]
    assert list(model.graph.node[0].input) == ["x", "one", "one", "row", "zero"]


def test_a_scalar_stays_a_scalar() -> None:
    x, emit = Value(X), emitter("")
    model = build(
        [x], {Y: emit.node("Mul", x, emit.constant(np.array(2, np.float32), "two"), role="r")}, opset=17, name="g"
    )
    assert list(model.graph.initializer[0].dims) == []


def test_an_invalid_graph_names_the_line_that_made_the_node() -> None:
    x, emit = Value(X), emitter()
    wrong = emit.node("Softmax", x, role="shares", axes=3)
    with pytest.raises(Unsupported, match=r"export/test_values\.py:\d+ \(layers\.3/attention/shares:Softmax\)"):
        build([x], {Y: wrong}, opset=17, name="g")


def test_shapes_that_do_not_fit_are_refused() -> None:
    x, emit = Value(X), emitter()
    wrong = emit.node("Add", x, emit.constant(np.ones(3, np.float32), "three"), role="sum")
    with pytest.raises(Unsupported, match="attention/sum:Add"):
        build([x], {Y: wrong}, opset=17, name="g")


def test_an_undeclared_input_is_refused() -> None:
    emit = emitter()
    with pytest.raises(Unsupported, match="reads 'x'"):
        build([], {Y: emit.node("Relu", Value(X), role="r")}, opset=17, name="g")


def test_the_oldest_versions_that_suffice_are_declared() -> None:
    x, emit = Value(X), emitter()
    plain = build([x], {Y: emit.node("Relu", x, role="r")}, opset=17, name="g")
    own = build([x], {Y: emit.microsoft("Gelu", x, role="r")}, opset=17, name="g")
    assert plain.ir_version == 8 == onnx.helper.find_min_ir_version_for(plain.opset_import)
    assert {(entry.domain, entry.version) for entry in plain.opset_import} == {("", 17)}
    assert {(entry.domain, entry.version) for entry in own.opset_import} == {("", 17), ("com.microsoft", 1)}


def test_a_deep_graph_needs_no_deep_stack() -> None:
    x, emit = Value(X), emitter("")
    value = x
    for _ in range(3000):
        value = emit.node("Relu", value, role="r")
    assert len(build([x], {Y: value}, opset=17, name="g").graph.node) == 3000


def test_a_loop_hands_on_what_its_rounds_make() -> None:
    most, start, emit = Value(Port("most", "int64", ())), Value(Port("start", "float32", (1,))), emitter("loop")
    number = Value(Port("round", "int64", ()))
    total, written = Value(Port("total", "float32", (1,))), Value(Port("written", "float32", ("time",)))
    double = emit.node("Add", start, start, role="double")  # the same in every round
    more = emit.node("Add", total, double, role="more")
    longer = emit.node("Concat", written, more, role="longer", axis=0)
    limit = emit.constant(np.array(10, dtype=np.float32), "limit")
    small = emit.node("Less", emit.node("Squeeze", more, role="one"), limit, role="small")
    nothing = emit.constant(np.zeros(0, dtype=np.float32), "nothing")
    carried = [Carried(start, total, more), Carried(nothing, written, longer)]
    _, every = emit.loop(most, small, carried, number=number, role="last")
    model = build([most, start], {Port("every", "float32", ("time",)): every}, opset=17, name="g")
    assert [node.op_type for node in model.graph.node] == ["Add", "Loop"]
    (body,) = [attribute.g for attribute in model.graph.node[1].attribute]
    assert sorted(node.op_type for node in body.node) == ["Add", "Concat", "Less", "Squeeze"]
    session = open_session(model.SerializeToString(), threads=1)

    def run(most: int) -> list[float]:
        found = session.run(None, {"most": np.array(most), "start": np.ones(1, dtype=np.float32)})[0]
        return [float(value) for value in found]

    assert run(2) == [3.0, 5.0]
    assert run(99) == [3.0, 5.0, 7.0, 9.0, 11.0]
    assert run(0) == []
