"""Graphs that write against the network, in pieces of any length, with padding, pruned and in int8."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.networks import quantized_network, random_network, tiny_shape
from support.stepping import Graphs, carried, empty_past, native
from support.strategies import writing_shapes
from support.writing_shapes import SHAPES
from torch import Tensor

from export.caches import CACHED, IDS, MASK, PLACES, SOURCE_MASK, STATES, cache_ports
from export.lower_writing import lower_encoder, lower_writer
from export.target import CPU, MOBILE, TARGETS, Target
from models.errors import Unsupported
from models.kinds import Int8Form, Positions
from models.network import Network
from models.shape import ModelShape, RelativeBias

targets = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
PIECES = ([7], [1] * 7, [3, 1, 1, 2])


def batch_of(shape: ModelShape, *, rows: int = 3, time: int = 7, padded: bool = True) -> dict[str, Tensor]:
    """Return what is read and written; rows differ in length, and of prompts one is padded on the left."""
    generator = torch.Generator().manual_seed(rows)
    ids = torch.randint(0, shape.vocab_size, (rows, 6 if shape.decoder else time), generator=generator)
    mask = torch.ones_like(ids)
    if padded:
        mask[1, 4:] = 0
        mask[2, :2] = 0 if shape.decoder is None else 1
        mask[2, 2:] = 1 if shape.decoder is None else 0
    batch = {"input_ids": ids, "attention_mask": mask}
    if shape.decoder is not None:
        batch["decoder_input_ids"] = torch.randint(0, shape.written_words, (rows, time), generator=generator)
    return batch


def meant(shape: ModelShape, batch: dict[str, Tensor]) -> Tensor:
    """Return which logits mean something."""
    written = batch.get("decoder_input_ids")
    return batch["attention_mask"].bool() if written is None else torch.ones_like(written, dtype=torch.bool)


def gap(network: Network, graphs: Graphs, batch: dict[str, Tensor], pieces: list[int]) -> float:
    expected, real = native(network, batch, pieces), meant(network.shape, batch)
    found, _ = graphs.stepped(batch, pieces)
    assert found.shape == expected.shape
    return float((torch.from_numpy(found)[real] - expected[real]).abs().max())


@targets
@pytest.mark.parametrize("name", SHAPES)
def test_steps_give_the_network_s_logits(name: str, target: Target) -> None:
    network = random_network(SHAPES[name])
    graphs = Graphs(network, target)
    for pieces in PIECES:
        for batch in (batch_of(network.shape), batch_of(network.shape, rows=1, padded=False)):
            assert gap(network, graphs, batch, list(pieces)) < 1e-4
    assert float(native(network, batch_of(network.shape), [7]).abs().max()) > 0.1


@settings(max_examples=25)
@given(writing_shapes(), st.sampled_from(PIECES))
def test_every_shape_that_writes_has_its_graphs(shape: ModelShape, pieces: list[int]) -> None:
    network = random_network(shape)
    assert gap(network, Graphs(network), batch_of(shape), list(pieces)) < 1e-3


@targets
@pytest.mark.parametrize("form", [Int8Form.DYNAMIC, Int8Form.STATIC])
@pytest.mark.parametrize("name", SHAPES)
def test_int8_steps_give_the_network_s_logits_for_one_text(name: str, form: Int8Form, target: Target) -> None:
    network = quantized_network(random_network(SHAPES[name]), form)
    graphs = Graphs(network, target)
    for pieces in PIECES:
        assert gap(network, graphs, batch_of(network.shape, rows=1, padded=False), list(pieces)) < 0.05


@pytest.mark.parametrize("form", [Int8Form.TABLE4, Int8Form.TABLE2])
def test_a_table_in_few_bits_reads_and_writes(form: Int8Form) -> None:
    network = random_network(SHAPES["gpt2"].with_int8({"embeddings.word": form}))
    table = network.embeddings.word
    table.weight.copy_(torch.randint(0, 256, table.weight.shape, dtype=torch.uint8))
    table.weight_scale.uniform_(-0.2, 0.2)
    assert gap(network, Graphs(network), batch_of(network.shape), [3, 1, 3]) < 1e-4


def test_inputs_and_outputs_have_the_names_of_the_ecosystem() -> None:
    def names(ports: Any) -> list[str]:
        return [port.name for port in ports]

    encoder = lower_encoder(random_network(SHAPES["bart"]), CPU).graph
    assert names(encoder.input) == ["input_ids", "attention_mask"]
    assert names(encoder.output) == ["last_hidden_state"]
    decoder = lower_writer(random_network(SHAPES["bart"]), CPU).graph
    caches = [
        f"{layer}.{side}.{kind}" for layer in range(2) for side in ("decoder", "encoder") for kind in ("key", "value")
    ]
    assert names(decoder.input) == [
        *("encoder_attention_mask", "input_ids", "encoder_hidden_states"),
        *(f"past_key_values.{cache}" for cache in caches),
        *("use_cache_branch", "num_logits_to_keep"),
    ]
    assert names(decoder.output) == ["logits", *(f"present.{cache}" for cache in caches)]
    alone = lower_writer(random_network(SHAPES["gpt2"]), CPU).graph
    caches = [f"{layer}.{kind}" for layer in range(2) for kind in ("key", "value")]
    assert names(alone.input) == [
        *("input_ids", "attention_mask", "position_ids"),
        *(f"past_key_values.{cache}" for cache in caches),
        "num_logits_to_keep",  # with a default, so that nobody has to know of it
    ]
    assert names(alone.output) == ["logits", *(f"present.{cache}" for cache in caches)]


def test_a_graph_without_places_asks_for_none() -> None:
    shape = replace(SHAPES["gpt2"], positions=Positions.NONE, relative=RelativeBias(6, 8))
    network = random_network(shape)
    assert "position_ids" not in {port.name for port in lower_writer(network, CPU).graph.input}
    assert gap(network, Graphs(network), batch_of(shape), [3, 1, 3]) < 1e-4


def sizes_of_a_step(network: Network, past: int) -> dict[str, int]:
    """Return how many numbers every value of the graph has that a step computes behind so many tokens."""
    shape, model = network.shape, lower_writer(network, MOBILE)
    inner = [name for node in model.graph.node for name in node.output]
    model = onnx.shape_inference.infer_shapes(model)
    types = {info.name: info.type.tensor_type.elem_type for info in model.graph.value_info}
    declared = {port.name for port in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, types[name], None) for name in inner if name not in declared
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    known = {
        name: np.zeros((1, value.shape[1], 4 if ".encoder." in name else past, value.shape[3]), np.float32)
        for name, value in empty_past(shape, 1).items()
    }
    known |= {
        IDS: np.zeros((1, 1), np.int64),
        MASK: np.ones((1, past + 1), np.int64),
        PLACES: np.full((1, 1), past),
        STATES: np.zeros((1, 0, shape.hidden_size), np.float32),
        SOURCE_MASK: np.ones((1, 4), np.int64),
        CACHED: np.array([True]),
    }
    given = {port.name: known[port.name] for port in session.get_inputs()}
    names = [port.name for port in session.get_outputs()]
    return {name: value.size for name, value in zip(names, session.run(names, given), strict=True)}


@pytest.mark.parametrize("name", ["bart", "t5", "gpt2", "llama"])
def test_a_step_costs_no_more_than_what_was_written_is_long(name: str) -> None:
    network = random_network(SHAPES[name])
    short, long = (sizes_of_a_step(network, past) for past in (9, 19))
    growing = {value for value in short if long[value] > short[value]}
    assert growing
    assert not {value for value in growing if long[value] > 2 * short[value]}


def test_later_steps_do_not_read_the_encoder_s_states() -> None:
    network = random_network(SHAPES["bart"])
    graphs, batch = Graphs(network), batch_of(SHAPES["bart"])
    expected, _ = graphs.stepped(batch, [3, 1])[0], None
    states = graphs.encoded(batch)
    rows = len(states)
    known: dict[str, Any] = {
        IDS: batch["decoder_input_ids"][:, :3].numpy(),
        SOURCE_MASK: batch["attention_mask"].numpy(),
        STATES: states,
        CACHED: np.array([False]),
        **empty_past(network.shape, rows),
    }
    found = graphs.run(known)
    past = carried(network.shape, empty_past(network.shape, rows), found, first=True)
    known |= {IDS: batch["decoder_input_ids"][:, 3:4].numpy(), STATES: states[:, :0], CACHED: np.array([True]), **past}
    later = graphs.run(known)
    np.testing.assert_allclose(later["logits"], expected[:, 3:], atol=1e-5)
    assert later["present.0.encoder.key"].size == 0


def test_keys_that_queries_share_are_not_copied() -> None:
    model = lower_writer(random_network(SHAPES["llama"]), CPU)
    assert not {"Expand", "Tile", "GatherND"} & {node.op_type for node in model.graph.node}


def test_a_layer_without_heads_keeps_nothing() -> None:
    (*_, last) = cache_ports(SHAPES["llama"])
    assert last.key.heads == 0
    found = [layer.cross_key is not None for layer in cache_ports(SHAPES["bart, pruned"])]
    assert found == [True, True, False, False]


def test_what_writes_nothing_has_no_such_graph() -> None:
    with pytest.raises(Unsupported, match="no layer that writes"):
        lower_writer(random_network(tiny_shape()), CPU)
    with pytest.raises(Unsupported, match="reads for no decoder"):
        lower_encoder(random_network(SHAPES["gpt2"]), CPU)
