"""Whole searches in a graph beside the same search around the network, or around the graph of a step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.networks import quantized_network, random_network
from support.searches import TEXTS, assert_same, searched
from support.writing_shapes import SHAPES

from export.lower_writing import lower_encoder, lower_writer
from export.runtime_steps import RuntimeSteps, writer_sessions
from export.search_in_graph import lower_search
from export.target import CPU, MOBILE, TARGETS, Target
from models.beams import Hypothesis
from models.errors import BadInput, Unsupported
from models.generation import Steps, generate, starts
from models.generation_settings import Ending, Generation, Sampling
from models.kinds import Int8Form
from models.native_steps import NativeSteps
from models.network import Network

# Ends that the tiny networks do write.
ENDS = (12, 48, 2)
HOW = Generation(start=1, end=ENDS, max_tokens=7, min_tokens=2)
targets = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


def expected(network: Network, how: Generation, begun: Any = None) -> list[list[Hypothesis]]:
    """Return what the search finds around the network, or around steps that are `begun` otherwise."""
    found = []
    for text in TEXTS:
        behind = network.decoder is not None
        sources = [list(text)] if behind else None
        steps: Steps = NativeSteps(network, sources) if begun is None else begun(sources)
        found += generate(steps, starts(how, 1) if behind else [list(text)], how)
    return found


@targets
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", SHAPES)
def test_it_writes_what_the_network_writes(name: str, beams: int, target: Target) -> None:
    network = random_network(SHAPES[name], seed=3)
    ends = tuple(token for token in ENDS if token < network.shape.written_words)
    how = replace(HOW, beams=beams, end=ends)
    assert_same(searched(network, how, target), expected(network, how))


@pytest.mark.parametrize(
    "changes",
    [
        {"beams": 4, "ending": Ending.NEVER, "length_penalty": 2.0},
        {"beams": 2, "ending": Ending.FULL, "length_penalty": 0.0, "forced_first": 9, "forced_last": 2},
        {"beams": 2, "end": (), "min_tokens": 7, "banned": (12, 48), "renormalize": True},
        {"max_tokens": 99, "min_tokens": 99, "beams": 2},
    ],
)
@pytest.mark.parametrize("name", ["bart", "gpt2"])
def test_it_writes_by_the_settings(name: str, changes: dict[str, Any]) -> None:
    network, how = random_network(SHAPES[name], seed=4), replace(HOW, **changes)
    assert_same(searched(network, how, CPU), expected(network, how))


@targets
@pytest.mark.parametrize("name", ["bart, pruned", "t5", "llama"])
def test_in_int8_it_writes_what_the_steps_write(name: str, target: Target) -> None:
    network = quantized_network(random_network(SHAPES[name], seed=3), Int8Form.DYNAMIC)
    how = replace(HOW, beams=2)
    writer = lower_writer(network, target).SerializeToString()
    encoder = None if network.decoder is None else lower_encoder(network, target).SerializeToString()
    sessions = writer_sessions(network.shape, writer, encoder, threads=1)
    found = searched(network, how, target)
    assert_same(found, expected(network, how, lambda sources: RuntimeSteps(sessions, sources)))
    assert len({texts[0].tokens for texts in found}) > 1


def test_a_caller_may_want_less() -> None:
    network, how = random_network(SHAPES["bart"], seed=3), replace(HOW, beams=2, end=(2,))
    assert_same(searched(network, how, CPU, max_tokens=3), expected(network, replace(how, max_tokens=3)))


def test_nothing_is_chosen_in_a_round_and_an_encoder_is_read_once() -> None:
    model = lower_search(random_network(SHAPES["bart"]), replace(HOW, beams=2), CPU)
    (loop,) = [node for node in model.graph.node if node.op_type == "Loop"]
    (body,) = [attribute.g for attribute in loop.attribute if attribute.name == "body"]
    operators = [node.op_type for node in body.node]
    assert not {"If", "Loop"} & set(operators)
    assert [node.input[0] for node in body.node if node.op_type == "Expand"] == ["search/before"]  # a number alone
    assert not body.initializer
    # Of two layers, their own and to the encoder.
    assert (operators.count("GroupQueryAttention"), operators.count("MultiHeadAttention")) == (2, 2)
    assert "Split" not in operators
    assert [port.name for port in model.graph.input] == ["input_ids", "attention_mask", "max_tokens"]
    assert [port.name for port in model.graph.output] == ["sequences", "scores"]


def test_waves_of_positions_stand_once_in_a_file() -> None:
    shape = SHAPES["marian"]
    held = lower_search(random_network(shape), replace(HOW, end=(2,)), CPU).graph.initializer
    waves = [one.dims for one in held if {shape.max_positions, shape.hidden_size} <= set(one.dims)]
    assert waves == [[shape.max_positions, shape.hidden_size]]


def test_what_no_graph_does_is_refused() -> None:
    network = random_network(SHAPES["bart"])
    for changes, name in (
        ({"sampling": Sampling()}, "do_sample"),
        ({"no_repeat": 3}, "no_repeat_ngram_size"),
        ({"repetition_penalty": 1.2}, "repetition_penalty"),
    ):
        with pytest.raises(Unsupported, match=f"with {name}"):
            lower_search(network, replace(HOW, **changes), MOBILE)
    for changes, message in (
        ({"start": None}, "starts with"),
        ({"end": ()}, "no token ends a text"),
        ({"end": (99,)}, r"not the tokens \[99\]"),
        ({"beams": 51}, "51 beams"),
    ):
        with pytest.raises(BadInput, match=message):
            lower_search(network, replace(HOW, **changes), MOBILE)
