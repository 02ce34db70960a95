"""The int8 arithmetic of models.layers.quantized is ONNX Runtime's, bit for bit."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from export.emit import Emit
from export.lowering import GROUPS, LOWERINGS
from export.lowering.quantized import quantized_words
from export.target import TARGETS, Target
from export.values import Port, Value, build
from models.kinds import Int8Form
from models.layers.quantized import (
    QuantizedEmbedding,
    QuantizedLinear,
    dynamic_range,
    integer_matmul,
    quantize_activation,
)

ROWS = st.integers(1, 9)
WIDTHS = st.integers(1, 70)
# Below the smallest normal number the scale itself rounds to 0, which the runtime divides by and we do not.
FLOATS = st.floats(-50, 50, width=32, allow_subnormal=False)


def session(build_graph: object) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(build_graph.SerializeToString(), options)  # type: ignore[attr-defined]


def _operator(name: str, inputs: list[Port], outputs: list[Port]) -> onnxruntime.InferenceSession:
    values = [Value(port) for port in inputs]
    emit = Emit(TARGETS["cpu"], LOWERINGS, GROUPS)
    results = emit.nodes(name, *values, roles=tuple(port.name for port in outputs))
    return session(build(values, dict(zip(outputs, results, strict=True)), opset=17, name="one"))


QUANTIZE = _operator(
    "DynamicQuantizeLinear",
    [Port("x", "float32", ("rows", "width"))],
    [Port("levels", "uint8", ("rows", "width")), Port("scale", "float32", ()), Port("zero_point", "uint8", ())],
)
PRODUCT = _operator(
    "MatMulInteger",
    [Port("levels", "uint8", ("r", "k")), Port("weight", "int8", ("k", "n")), Port("zero_point", "uint8", ())],
    [Port("sums", "int32", ("r", "n"))],
)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_dynamic_quantization_is_bit_exact(data: st.DataObject) -> None:
    x = data.draw(arrays(np.float32, (data.draw(ROWS), data.draw(WIDTHS)), elements=FLOATS))
    levels, scale, zero_point = QUANTIZE.run(None, {"x": x})
    own_scale, own_zero = dynamic_range(torch.from_numpy(x)[None])
    own_levels = quantize_activation(torch.from_numpy(x)[None], own_scale, own_zero)
    assert own_scale.item() == scale
    assert own_zero.item() == zero_point
    np.testing.assert_array_equal(own_levels[0].numpy(), levels)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), ROWS, WIDTHS, WIDTHS, st.integers(0, 255))
def test_integer_products_are_bit_exact(seed: int, rows: int, inner: int, outer: int, zero_point: int) -> None:
    random = np.random.default_rng(seed)
    levels = random.integers(0, 256, (rows, inner), dtype=np.uint8)
    weight = random.integers(-127, 128, (inner, outer), dtype=np.int8)
    (sums,) = PRODUCT.run(
        None, {"levels": levels, "weight": weight, "zero_point": np.array(zero_point, dtype=np.uint8)}
    )
    own = integer_matmul(
        torch.from_numpy(levels).float(), torch.tensor(float(zero_point)), torch.from_numpy(weight.T.copy())
    )
    np.testing.assert_array_equal(own.numpy(), sums)


def test_the_largest_sums_do_not_saturate() -> None:
    levels, weight = np.full((2, 384), 255, dtype=np.uint8), np.full((384, 16), 127, dtype=np.int8)
    (sums,) = PRODUCT.run(None, {"levels": levels, "weight": weight, "zero_point": np.array(0, dtype=np.uint8)})
    own = integer_matmul(torch.from_numpy(levels).float(), torch.tensor(0.0), torch.from_numpy(weight.T.copy()))
    np.testing.assert_array_equal(own.numpy(), sums)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 9),
    WIDTHS,
    WIDTHS,
    st.sampled_from([Int8Form.DYNAMIC, Int8Form.STATIC]),
    st.sampled_from(list(TARGETS.values())),
)
def test_a_quantized_layer_is_exact_to_float_rounding(
    seed: int, time: int, inner: int, outer: int, form: Int8Form, target: Target
) -> None:
    generator = torch.Generator().manual_seed(seed)
    layer = QuantizedLinear(inner, outer, form=form)
    layer.weight.copy_(torch.randint(-127, 128, (outer, inner), generator=generator))
    layer.weight_scale.copy_(torch.rand(outer, generator=generator) * 0.01 + 1e-4)
    layer.bias.copy_(torch.randn(outer, generator=generator))
    if form is Int8Form.STATIC:
        layer.input_scale.fill_(0.021)
        layer.input_zero_point.fill_(131)
    x = Value(Port("x", "float32", ("batch", "time", inner)))
    emit = Emit(target, LOWERINGS, GROUPS, "layer")
    (output,) = GROUPS[QuantizedLinear]([layer], [emit], x)
    model = build([x], {Port("y", "float32", ("batch", "time", outer)): output}, opset=target.opset, name="layer")
    hidden = torch.randn(1, time, inner, generator=generator) * 3
    (runtime,) = session(model).run(None, {"x": hidden.numpy()})
    native = layer(hidden).numpy()
    np.testing.assert_allclose(runtime, native, rtol=1e-5, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), WIDTHS, WIDTHS, st.booleans(), st.sampled_from(list(TARGETS.values())))
def test_words_written_by_an_int8_table_are_exact_to_float_rounding(
    seed: int, words: int, width: int, biased: bool, target: Target
) -> None:
    generator = torch.Generator().manual_seed(seed)
    table = QuantizedEmbedding(words, width)
    table.weight.copy_(torch.randint(-127, 128, (words, width), generator=generator))
    table.weight_scale.copy_(torch.rand(words, generator=generator) * 0.01 + 1e-4)
    bias = torch.randn(words, generator=generator) if biased else None
    hidden = Value(Port("hidden", "float32", ("batch", "time", width)))
    logits = quantized_words(table, Emit(target, LOWERINGS, GROUPS, "output"), hidden, bias)
    model = build([hidden], {Port("logits", "float32", ("batch", "time", words)): logits}, opset=17, name="words")
    states = torch.randn(1, 2, width, generator=generator) * 3
    (runtime,) = session(model).run(None, {"hidden": states.numpy()})
    native = table.products(states) + (0.0 if bias is None else bias)
    np.testing.assert_allclose(runtime, native.numpy(), rtol=1e-5, atol=1e-5)
