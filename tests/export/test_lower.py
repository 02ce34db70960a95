from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from support import writing_shapes
from support.images import BOXES, image_shape
from support.networks import EVEN, PRUNED, TURNED, WINDOWS, quantized_network, random_network, tiny_shape
from torch import nn

import models.layers.attention
import models.layers.blocked
import models.layers.embeddings
import models.layers.feedforward
import models.layers.heads
import models.layers.norm
import models.layers.packed
import models.layers.quantized
import models.network
from export import parity
from export.emit import Emit
from export.lower import lower
from export.lowering import GROUPS, LOWERINGS
from export.lowering.quantized import lower_packed_embedding, lower_two_bit_embedding
from export.session import open_session, run
from export.target import CPU, TARGETS, Target
from export.values import Port, Value, build
from models.errors import Unsupported
from models.kinds import Activation, Int8Form, Norm, Positions, Reads
from models.layers.activation import make_activation
from models.layers.packed import PackedEmbedding, TwoBitEmbedding, pack_rows, pack_rows_in_two_bits
from models.network import Network
from models.shape import HeadShape, ImageShape, LayerShape, ModelShape, RelativeBias

targets = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
FLOAT = parity.FLOAT_BOUND

IN_INT8 = (
    *(
        "bert",
        "roberta",
        "distilbert",
        "narrow tables",
        "distances",
        "distances, pruned",
        "turned",
        "turned, mean of tokens",
    ),
    *("pruned", "pruned, pre-norm", "norm rms_norm", "head of tokens", "embedding", "embedding, projected"),
    *("norm elementwise", "pre-norm elementwise", "pruned, elementwise", "relu, elementwise, narrow tables"),
    *("image", "image, colour", "objects", "objects, all tokens last"),
)
OF_OBJECTS = ImageShape(10, 15, 4, channels=3, suffix=3)
PLACED = tuple(replace(layer, places=index > 0) for index, layer in enumerate(PRUNED))
SHAPES = {
    "bert": tiny_shape(),
    "roberta": tiny_shape(family="roberta", position_offset=2, type_vocab_size=1, norm_eps=1e-5),
    "distilbert": tiny_shape(
        family="distilbert", type_vocab_size=0, head=HeadShape(("a", "b"), activation=Activation.RELU)
    ),
    "narrow tables": tiny_shape(embedding_size=20, head=HeadShape(("a", "b"), activation=Activation.GELU)),
    "distances": tiny_shape(relative=RelativeBias(8, 10), type_vocab_size=0, position_offset=2),
    "distances, pruned": tiny_shape(PRUNED, relative=RelativeBias()),
    "distances, head of tokens": tiny_shape(
        relative=RelativeBias(4, 2), head=HeadShape(("O", "B-x"), reads=Reads.EACH)
    ),
    "turned": tiny_shape(WINDOWS, **TURNED),
    "turned, everything in sight": tiny_shape(WINDOWS[:1], **TURNED),
    "turned, mean of tokens": tiny_shape(
        WINDOWS, **TURNED, head=HeadShape(("a", "b"), Activation.GELU, reads=Reads.MEAN, normed=True)
    ),
    "turned, first token": tiny_shape(WINDOWS, **TURNED, head=HeadShape(("a", "b"), normed=True)),
    "turned, head of tokens": tiny_shape(WINDOWS, **TURNED, head=HeadShape(("a", "b"), reads=Reads.EACH, normed=True)),
    "windows and distances": tiny_shape(WINDOWS, relative=RelativeBias(4, 2), **TURNED),
    "gates": tiny_shape(PRUNED, gated=True),
    "pruned": tiny_shape(PRUNED),
    "pruned, pre-norm": tiny_shape(PRUNED, pre_norm=True),
    "pruned, elementwise": tiny_shape(PRUNED, norm=Norm.ELEMENTWISE),
    "pruned, rms_norm": tiny_shape(PRUNED, norm=Norm.RMS),
    "relu, elementwise, narrow tables": tiny_shape(
        (LayerShape(0, 8, 5), *EVEN), norm=Norm.ELEMENTWISE, embedding_size=20, activation=Activation.RELU
    ),
    "elementwise, no positions": tiny_shape((LayerShape(0, 8, 0),), norm=Norm.ELEMENTWISE, positions=Positions.NONE),
    "nothing left at first": tiny_shape((LayerShape(0, 8, 0), *EVEN), pre_norm=True),
    "image, nothing left at first": image_shape((LayerShape(0, 8, 0), *EVEN)),
    "last layer empty": tiny_shape((*EVEN, LayerShape(0, 8, 0))),
    "no layer": tiny_shape(()),
    "no head": tiny_shape(head=None),
    "head of tokens": tiny_shape(PRUNED, head=HeadShape(("O", "B-x", "I-x"), reads=Reads.EACH)),
    "embedding": tiny_shape(PRUNED, head=HeadShape((), reads=Reads.MEAN, width=32, normalized=True)),
    "embedding of the first token": tiny_shape(head=HeadShape((), width=32, normalized=True)),
    "embedding, projected": tiny_shape(head=HeadShape((), reads=Reads.MEAN, width=12, normalized=True, projected=True)),
    "embedding of the first token, projected": tiny_shape(head=HeadShape((), width=12, projected=True)),
    "embedding of any length": tiny_shape(head=HeadShape((), reads=Reads.MEAN, width=32)),
    "no head, pre-norm": tiny_shape(PRUNED, head=None, pre_norm=True),
    "sinusoidal": tiny_shape(positions=Positions.SINUSOIDAL, position_offset=3),
    "image": image_shape(PRUNED),
    "image, colour": image_shape(image=ImageShape(10, 15, 4, channels=3, prefix=2)),
    "image, mean": image_shape(head=HeadShape(("a", "b"), reads=Reads.MEAN, dense=False)),
    "image, no head": image_shape(head=None),
    "objects": image_shape((*PLACED, LayerShape(2, 8, 5)), image=OF_OBJECTS, head=BOXES),
    "objects, places last": image_shape(PLACED, image=OF_OBJECTS, head=BOXES),
    "objects, all tokens last": image_shape((LayerShape(2, 8, 5, window=3),), image=OF_OBJECTS, head=BOXES),
    "objects, linear": image_shape((LayerShape(2, 8, 5, linear=True),), image=OF_OBJECTS, head=BOXES),
    "objects, no layer": image_shape((), image=OF_OBJECTS, head=BOXES),
    "objects, no head": image_shape(PLACED, image=OF_OBJECTS, head=None),
    **{f"norm {norm.value}": tiny_shape(norm=norm) for norm in Norm},
    **{f"pre-norm {norm.value}": tiny_shape(norm=norm, pre_norm=True) for norm in Norm},
    **{f"activation {activation.value}": tiny_shape(activation=activation) for activation in Activation},
    **{
        f"head {activation.value}": tiny_shape(head=HeadShape(("a", "b"), activation=activation))
        for activation in Activation
    },
}


def batch(rows: int, time: int, *, padded: bool = False, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    mask = np.ones((rows, time), dtype=np.int64)
    if padded:
        for row in range(1, rows):
            mask[row, time - row * time // (rows + 1) :] = 0
    return {
        "input_ids": random.integers(0, 50, (rows, time)),
        "attention_mask": mask,
        "token_type_ids": np.zeros((rows, time), dtype=np.int64),
    }


def suited(arrays: dict[str, Any], network: Network) -> dict[str, Any]:
    """Return a batch with second texts where the network knows any, or as many images where it reads these."""
    image = network.shape.image
    if image is not None:
        rows, time = arrays["input_ids"].shape
        size = (rows, image.channels, image.height, image.width)
        return {"pixel_values": np.random.default_rng(time).normal(size=size).astype(np.float32)}
    if network.shape.type_vocab_size > 1:
        arrays["token_type_ids"][:, arrays["input_ids"].shape[1] // 2 :] = 1
    return arrays


@targets
@pytest.mark.parametrize("name", SHAPES)
def test_float_networks_compute_the_same(name: str, target: Target) -> None:
    network = random_network(SHAPES[name])
    model = lower(network, target).SerializeToString()
    batches = [batch(1, 1), batch(1, 9), batch(3, 12, padded=True), batch(2, 31, padded=True)]
    found = parity.compare(network, model, [suited(arrays, network) for arrays in batches])
    if network.head is None:
        assert found.max_abs < 1e-4  # token for token the top of a hidden state says nothing
    else:
        found.check(FLOAT)
    assert max(abs(value) for value in found.worst_native) > 1e-2


@targets
@pytest.mark.parametrize("form", [Int8Form.DYNAMIC, Int8Form.STATIC])
@pytest.mark.parametrize("name", IN_INT8)
def test_int8_networks_compute_the_same_at_batch_one(name: str, form: Int8Form, target: Target) -> None:
    network = quantized_network(random_network(SHAPES[name]), form)
    model = lower(network, target).SerializeToString()
    batches = [suited(batch(1, time, seed=time), network) for time in (1, 2, 7, 16, 30)]
    found = parity.compare(network, model, batches)
    found.check(parity.INT8_BOUND)
    assert found.p95_abs < 0.01


def test_int8_is_not_what_float_computes() -> None:
    network = random_network(SHAPES["bert"])
    model = lower(quantized_network(network, Int8Form.DYNAMIC), CPU).SerializeToString()
    assert parity.compare(network, model, [batch(1, 9)]).max_abs > 1e-3


def test_static_int8_does_not_depend_on_the_batch() -> None:
    network = quantized_network(random_network(SHAPES["bert"]), Int8Form.STATIC)
    found = parity.compare(network, lower(network, CPU).SerializeToString(), [batch(3, 12, padded=True)])
    assert found.max_abs < 0.01


def test_layers_of_different_forms_live_together() -> None:
    network = quantized_network(random_network(SHAPES["bert"]), Int8Form.STATIC)
    network.layers[0].attention.key.input_scale.fill_(0.05)
    forms = {path: form for path, form in network.shape.int8 if path != "layers.1.attention.value"}
    mixed = Network(network.shape.with_int8(forms)).eval()
    mixed.load_state_dict({**random_network(network.shape.with_int8(forms)).state_dict(), **_common(network, mixed)})
    found = parity.compare(mixed, lower(mixed, CPU).SerializeToString(), [batch(1, 12), batch(1, 5)])
    assert found.max_abs < 0.01


def _common(source: Network, target: Network) -> dict[str, torch.Tensor]:
    slots = target.state_dict()
    return {
        name: value
        for name, value in source.state_dict().items()
        if name in slots and slots[name].dtype is value.dtype and slots[name].shape == value.shape
    }


def test_the_embedding_table_alone_may_be_int8() -> None:
    shape = tiny_shape().with_int8({"embeddings.word": Int8Form.TABLE, "embeddings.position": Int8Form.TABLE})
    network = random_network(shape)
    for table in (network.embeddings.word, network.embeddings.position):
        table.weight.copy_(torch.randint(-127, 128, table.weight.shape))
        table.weight_scale.uniform_(1e-3, 1e-2)
    parity.compare(network, lower(network, CPU).SerializeToString(), [batch(2, 12)]).check(FLOAT)


@targets
@pytest.mark.parametrize("form", [Int8Form.TABLE4, Int8Form.TABLE2])
def test_the_word_table_may_be_in_few_bits(target: Target, form: Int8Form) -> None:
    shape = tiny_shape().with_int8({"embeddings.word": form})
    network = random_network(shape)
    table = network.embeddings.word
    table.weight.copy_(torch.randint(0, 256, table.weight.shape, dtype=torch.uint8))
    table.weight_scale.uniform_(-0.2, 0.2)
    parity.compare(network, lower(network, target).SerializeToString(), [batch(2, 12), batch(1, 5)]).check(FLOAT)


@targets
def test_weights_with_16_levels_are_packed_and_unpacked_once(target: Target, tmp_path: Path) -> None:
    shape = tiny_shape()
    names = {"layers.0.ffn.up": "layers.0/ffn/up", "head.output": "head/output"}
    network = random_network(shape.with_int8(dict.fromkeys(names, Int8Form.DYNAMIC)))
    for path in names:
        module = network.get_submodule(path)
        module.weight.copy_(torch.randint(-8, 8, module.weight.shape))
        module.weight_scale.uniform_(-0.2, 0.2)
    model = lower(network, target)
    parity.compare(network, model.SerializeToString(), [batch(1, 12), batch(1, 5)]).check(FLOAT)
    kept = {weight.name: weight for weight in model.graph.initializer}
    for path, name in names.items():
        module = network.get_submodule(path)
        pairs = kept[f"{name}/weight"]
        assert pairs.data_type == onnx.TensorProto.UINT8
        assert list(pairs.dims) == [module.in_features, (module.out_features + 1) // 2]
    # The runtime unpacks them when it starts a session: no call does.
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    assert not [node.name for node in graph.node if node.op_type == "Floor"]
    whole = [one for one in graph.initializer if one.data_type == onnx.TensorProto.INT8]
    sizes = [network.get_submodule(path).weight.numel() for path in names]
    assert sorted(int(np.prod(one.dims)) for one in whole) == sorted(sizes)


@pytest.mark.parametrize("width", [1, 6, 7, 8])
@pytest.mark.parametrize(
    ("kind", "packed", "lowered"),
    [
        (PackedEmbedding, pack_rows, lower_packed_embedding),
        (TwoBitEmbedding, pack_rows_in_two_bits, lower_two_bit_embedding),
    ],
)
def test_a_table_in_few_bits_may_have_any_width(width: int, kind: Any, packed: Any, lowered: Any) -> None:
    table = kind(20, width)
    table.weight, table.weight_scale = packed(torch.randn(20, width))
    ids = Value(Port("ids", "int64", ("batch", "time")))
    rows = lowered(table, Emit(CPU, LOWERINGS, GROUPS), ids)
    model = build([ids], {Port("rows", "float32", ("batch", "time", width)): rows}, opset=CPU.opset, name="table")
    asked = np.arange(20, dtype=np.int64).reshape(4, 5)
    (found,) = open_session(model.SerializeToString(), threads=1).run(None, {"ids": asked})
    torch.testing.assert_close(torch.from_numpy(found), table(torch.from_numpy(asked)))


def test_only_the_first_token_is_computed_in_the_last_layer() -> None:
    network = random_network(tiny_shape())
    arrays = {name: torch.from_numpy(value) for name, value in batch(2, 9, padded=True).items()}
    widths = []
    network.layers[-1].ffn.register_forward_hook(lambda _module, _inputs, output: widths.append(output.shape[1]))
    with torch.no_grad():
        torch.testing.assert_close(network(**arrays), network.features(**arrays).logits)
    assert widths == [1, 9]
    model = lower(network, CPU)
    (row,) = (node for node in model.graph.node if node.output[0] == "layers.1/reader")
    assert row.op_type == "Gather"


def _layer_types() -> set[type[nn.Module]]:
    """Return every module class that models.layers and models.network define or instantiate by name."""
    places = (models.layers, models.network)
    folder = [
        getattr(models.layers, name)
        for name in (
            "attention",
            "blocked",
            "embeddings",
            "feedforward",
            "heads",
            "norm",
            "packed",
            "patches",
            "quantized",
        )
    ]
    own = {
        found
        for place in (*folder, places[1])
        for _, found in inspect.getmembers(place, inspect.isclass)
        if issubclass(found, nn.Module) and found.__module__ == place.__name__
    }
    used = {type(module) for name in SHAPES for module in random_network(SHAPES[name]).modules()}
    return own | used | {type(make_activation(activation)) for activation in Activation}


def test_a_head_of_boxes_gives_two_outputs_and_reads_its_own_tokens_alone() -> None:
    network = random_network(SHAPES["objects"])
    model = lower(network, CPU)
    outputs = {
        one.name: [axis.dim_value or axis.dim_param for axis in one.type.tensor_type.shape.dim]
        for one in model.graph.output
    }
    assert outputs == {"logits": ["batch", 3, 4], "pred_boxes": ["batch", 3, 4]}
    (row,) = (node for node in model.graph.node if node.output[0] == "layers.5/reader")
    assert row.op_type == "Slice"
    arrays = suited(batch(2, 3), network)
    session = open_session(model.SerializeToString(), threads=1)
    logits, boxes = session.run(None, arrays)
    answers = run(session, arrays)
    np.testing.assert_array_equal(answers, np.concatenate([logits, boxes], axis=-1))
    assert ((boxes > 0) & (boxes < 1)).all()
    features = network.features(**{name: torch.from_numpy(value) for name, value in arrays.items()})
    np.testing.assert_allclose(features.logits.detach().numpy(), answers, atol=1e-5)  # all tokens in all layers


def test_every_module_type_has_a_lowering() -> None:
    # Dropout is nothing in evaluation, ModuleList has no forward, and what rounds for show exists in training only.
    without = {models.layers.dropout.Dropout, nn.ModuleList, models.layers.quantized.FakeQuantizedLinear}
    without |= {models.layers.packed.FakeRoundedEmbedding, Network}  # a network is no part of another
    without |= {models.layers.patches.LearnedRows}  # what they hold is in the sum that an image's tokens begin with
    assert _layer_types() - without == set(LOWERINGS) | set(GROUPS)


def test_what_writes_is_refused_by_name() -> None:
    network = random_network(writing_shapes.SHAPES["gpt2"])
    with pytest.raises(Unsupported, match="a bert model: a model that writes has no ONNX form in one step"):
        lower(network, CPU)


def test_an_unknown_module_is_refused_by_name() -> None:
    network = random_network(tiny_shape())
    network.layers[1].ffn.activation = nn.Softplus()
    with pytest.raises(Unsupported, match=r"layers\.1\.ffn\.activation: there is no ONNX form of a Softplus"):
        lower(network, CPU)


@pytest.mark.parametrize("form", [None, Int8Form.DYNAMIC, Int8Form.STATIC])
def test_mobile_graphs_hold_standard_operators_only(form: Int8Form | None) -> None:
    for name, shape in SHAPES.items():
        network = random_network(shape)
        network = network if form is None else quantized_network(network, form)
        model = lower(network, TARGETS["mobile"])
        assert {node.domain for node in model.graph.node} == {""}, name


def optimised(model: onnx.ModelProto, path: Path) -> list[str]:
    """Return the operators that run under the runtime's default options."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(path).graph.node]


@targets
@pytest.mark.parametrize("form", [None, Int8Form.DYNAMIC, Int8Form.STATIC])
def test_default_options_leave_no_slow_operator(target: Target, form: Int8Form | None, tmp_path: Path) -> None:
    network = random_network(tiny_shape())
    network = network if form is None else quantized_network(network, form)
    operators = optimised(lower(network, target), tmp_path / "optimised.onnx")
    assert operators.count("LayerNormalization") == 5
    slow = {"SkipLayerNormalization", "EmbedLayerNormalization", "Erf"}
    # With a constant scale the runtime's pattern for MatMulIntegerToFloat does not match standard operators.
    slow |= set() if form is Int8Form.STATIC and target is not CPU else {"MatMulInteger"}
    assert not slow & set(operators)


def test_one_quantization_feeds_query_key_and_value() -> None:
    network = quantized_network(random_network(tiny_shape()), Int8Form.DYNAMIC)
    nodes = lower(network, CPU).graph.node
    (levels,) = (node.output[0] for node in nodes if node.output[0] == "layers.0/attention/query/levels")
    assert [node.op_type for node in nodes if levels in node.input] == ["MatMulIntegerToFloat"] * 3


def test_inputs_and_outputs_are_declared() -> None:
    def ports(shape: ModelShape) -> list[str]:
        graph = lower(random_network(shape), CPU).graph
        return [
            f"{port.name} {port.type.tensor_type.elem_type} "
            + " ".join(dim.dim_param or str(dim.dim_value) for dim in port.type.tensor_type.shape.dim)
            for port in (*graph.input, *graph.output)
        ]

    assert ports(SHAPES["bert"]) == [
        "input_ids 7 batch time",
        "attention_mask 7 batch time",
        "token_type_ids 7 batch time",
        "logits 1 batch 3",
    ]
    assert ports(SHAPES["distilbert"]) == ["input_ids 7 batch time", "attention_mask 7 batch time", "logits 1 batch 2"]
    assert ports(SHAPES["head of tokens"])[-1] == "logits 1 batch time 3"
    assert ports(SHAPES["image, colour"]) == ["pixel_values 1 batch 3 10 15", "logits 1 batch 3"]
    assert ports(SHAPES["no head"])[-1] == "last_hidden_state 1 batch time 32"


def test_the_same_network_gives_the_same_bytes() -> None:
    first, second = (lower(random_network(tiny_shape()), CPU).SerializeToString() for _ in range(2))
    assert first == second


def test_the_emitted_graph_reads_as_written_down() -> None:
    network = quantized_network(random_network(tiny_shape((LayerShape(4, 8, 48),))), Int8Form.DYNAMIC)
    assert dump(lower(network, CPU)) == (Path(__file__).parent / "golden_graph.txt").read_text(encoding="utf-8")


def dump(model: onnx.ModelProto) -> str:
    """Return one line per node and per weight of a model."""
    lines = []
    for node in model.graph.node:
        settings = ", ".join(f"{one.name}={onnx.helper.get_attribute_value(one)}" for one in node.attribute)
        operator = f"{node.domain}.{node.op_type}".lstrip(".") + (f"[{settings}]" if settings else "")
        lines.append(f"{', '.join(node.output)} = {operator}({', '.join(node.input)})")
    for weight in model.graph.initializer:
        array = numpy_helper.to_array(weight)
        lines.append(f"{weight.name}: {array.dtype}{list(array.shape)}")
    return "\n".join(lines) + "\n"
