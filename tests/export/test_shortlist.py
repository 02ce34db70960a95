"""Searches in a graph that weigh a few words alone, beside the search of which all others are banned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import tiny_tokenizing
from support.networks import quantized_network, random_network
from support.searches import TEXTS, assert_same, searched
from support.shortlists import drawn_shortlist, every_word
from support.writing_shapes import CROSSING, SHAPES
from torch import nn

from compress.quantization.schemes import choices_in_blocks, forms_of, quantize
from export.emit import Emit
from export.listed_words import listed_words
from export.lower_writing import lower_encoder, lower_writer
from export.lowering import GROUPS, LOWERINGS
from export.runtime_steps import RuntimeSteps, writer_sessions
from export.search_in_graph import lower_search
from export.session import open_session
from export.shortlist import ListedSteps, Shortlist
from export.target import CPU, TARGETS, Target
from export.values import Port, Value, build
from models.beams import Hypothesis
from models.checkpoint import Checkpoint
from models.errors import BadInput, Unsupported
from models.generation import Steps, generate, starts
from models.generation_settings import Ending, Generation
from models.kinds import Int8Form
from models.layers.packed import pack_rows, pack_rows_in_two_bits
from models.native_steps import NativeSteps
from models.network import Network
from models.shape import DecoderShape, ModelShape, OutputShape

ENDS = (12, 38, 2)  # the tiny networks do write them
HOW = Generation(start=1, end=ENDS, max_tokens=7, min_tokens=2)
UNTIED = replace(SHAPES["bart"], decoder=DecoderShape((CROSSING,)), output=OutputShape(tied=False, scale=0.5))
BEHIND = {name: shape for name, shape in SHAPES.items() if shape.decoder is not None} | {"untied": UNTIED}


def expected(
    begun: Callable[[list[list[int]]], Steps],
    how: Generation,
    shortlist: Shortlist,
    sources: Sequence[list[int]] = TEXTS,
) -> list[list[Hypothesis]]:
    """Return what the search finds around steps that are `begun` for a source, in which other words have no share."""
    found = []
    for text in sources:
        steps = ListedSteps(begun([text]), [shortlist.words_for(text)])
        found += generate(steps, starts(how, 1), how)
    return found


@settings(max_examples=25)
@given(st.integers(0, 999), st.lists(st.integers(0, 49), min_size=1, max_size=12))
def test_a_graph_lists_the_words_of_a_source(seed: int, source: list[int]) -> None:
    shape = SHAPES["bart" if seed % 2 else "marian"]
    shortlist = drawn_shortlist(shape, HOW, seed=seed)
    ids = Value(Port("input_ids", "int64", (1, "source")))
    words = listed_words(Emit(CPU, LOWERINGS, GROUPS), shortlist, ids, words=shape.written_words)
    model = build([ids], {Port("words", "int64", ("listed",)): words}, opset=CPU.opset, name="listed")
    (found,) = open_session(model.SerializeToString(), threads=1).run(None, {"input_ids": np.array([source])})
    behind = {int(word) for token in source for word in shortlist.behind[shortlist.rows[token]]}
    wanted = sorted(behind | set(shortlist.always.tolist()) | (set(source) if seed % 2 else set()))
    assert found.tolist() == shortlist.words_for(source).tolist() == wanted


@pytest.mark.parametrize(("name", "beams"), [("bart", 1), ("bart, pruned", 3), ("marian", 3), ("t5", 3), ("untied", 1)])
def test_a_list_of_every_word_changes_nothing(name: str, beams: int) -> None:
    network, how = random_network(BEHIND[name], seed=3), replace(HOW, beams=beams)
    every = every_word(network.shape)
    assert_same(searched(network, how, CPU, every), searched(network, how, CPU, None))


@pytest.mark.parametrize(
    ("name", "beams", "target"),
    [
        ("bart", 1, "cpu"),
        ("bart", 3, "web"),
        ("bart, pruned", 3, "cpu"),
        ("marian", 1, "mobile"),
        ("marian", 3, "cpu"),
        ("t5", 3, "cpu"),
        ("untied", 3, "mobile"),
    ],
)
def test_others_are_never_written(name: str, beams: int, target: str) -> None:
    network, how = random_network(BEHIND[name], seed=3), replace(HOW, beams=beams)
    shortlist = drawn_shortlist(network.shape, how, seed=5)
    found = searched(network, how, TARGETS[target], shortlist)
    assert_same(found, expected(lambda sources: NativeSteps(network, sources), how, shortlist))
    for text, texts in zip(TEXTS, found, strict=True):
        assert {token for one in texts for token in one.tokens} <= set(shortlist.words_for(text).tolist())
    assert found != expected(lambda sources: NativeSteps(network, sources), how, every_word(network.shape))


@pytest.mark.parametrize(
    "changes",
    [
        {"beams": 4, "ending": Ending.NEVER, "length_penalty": 2.0},
        {"beams": 2, "ending": Ending.FULL, "length_penalty": 0.0, "forced_first": 9, "forced_last": 2},
        {"beams": 2, "end": (), "min_tokens": 7, "renormalize": True},
        {"forced_first": 9, "banned": (5, 9, 14, 21)},
    ],
)
def test_it_writes_by_the_settings(changes: dict[str, Any]) -> None:
    network, how = random_network(SHAPES["bart"], seed=4), replace(HOW, **changes)
    shortlist = drawn_shortlist(network.shape, how, seed=1)
    assert_same(
        searched(network, how, CPU, shortlist),
        expected(lambda sources: NativeSteps(network, sources), how, shortlist),
    )


def test_others_are_as_if_they_were_banned() -> None:
    network, how = random_network(SHAPES["bart"], seed=4), replace(HOW, beams=3, min_tokens=0)
    shortlist = drawn_shortlist(network.shape, how, seed=2)
    wanted = []
    for text in TEXTS:
        others = set(range(network.shape.written_words)) - set(shortlist.words_for(text).tolist())
        alone = replace(how, banned=tuple(sorted(others)), renormalize=True)
        wanted += generate(NativeSteps(network, [text]), starts(how, 1), alone)
    assert_same(searched(network, how, CPU, shortlist), wanted)


@pytest.mark.parametrize(
    ("name", "form", "beams", "target"),
    [
        ("bart, pruned", Int8Form.DYNAMIC, 3, "cpu"),
        ("marian", Int8Form.DYNAMIC, 3, "mobile"),
        ("t5", Int8Form.DYNAMIC, 1, "cpu"),
        ("untied", Int8Form.DYNAMIC, 3, "web"),
        ("untied", Int8Form.STATIC, 3, "cpu"),
    ],
)
def test_in_int8_it_is_the_same(name: str, form: Int8Form, beams: int, target: str) -> None:
    network = quantized_network(random_network(BEHIND[name], seed=3), form)
    if name == "untied":  # what rounds weights writes into a bias
        network.get_buffer("output.projection.bias").copy_(torch.linspace(-1, 1, 50))
    assert_of_steps(network, replace(HOW, beams=beams), TARGETS[target])


@pytest.mark.parametrize("form", [Int8Form.TABLE4, Int8Form.TABLE2])
def test_words_in_few_bits_are_unpacked_where_they_are_listed(form: Int8Form) -> None:
    network = random_network(SHAPES["bart"], seed=3)
    rounded = Network(network.shape.with_int8({"embeddings.word": form})).eval()
    packed = (pack_rows if form is Int8Form.TABLE4 else pack_rows_in_two_bits)(network.embeddings.word.weight)
    words = dict(zip(("embeddings.word.weight", "embeddings.word.weight_scale"), packed, strict=True))
    rounded.load_state_dict(network.state_dict() | words)
    assert_of_steps(rounded, replace(HOW, beams=2), CPU)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", ["bart", "marian", "untied"])
def test_words_in_blocks_are_those_of_all(name: str, beams: int) -> None:
    network = random_network(BEHIND[name], seed=3)
    checkpoint = Checkpoint(network.shape, {}, tiny_tokenizing()).of(network)
    blocked = choices_in_blocks(network.shape, forms_of(checkpoint), Int8Form.BLOCKS32)["all"]
    rounded = quantize(checkpoint, blocked)
    if name == "untied":
        rounded.weights["output.projection.bias"].copy_(torch.linspace(-1, 1, 50))
    assert_of_steps(rounded.network(), replace(HOW, beams=beams), CPU)


def assert_of_steps(network: Network, how: Generation, target: Target) -> None:
    """Check that a graph finds what is found around the graph of a step, with a list of every word and of few."""
    writer, encoder = (make(network, target).SerializeToString() for make in (lower_writer, lower_encoder))
    sessions = writer_sessions(network.shape, writer, encoder, threads=1)
    for shortlist in (every_word(network.shape), drawn_shortlist(network.shape, how, seed=1)):
        found = searched(network, how, target, shortlist)
        assert_same(found, expected(lambda sources: RuntimeSteps(sessions, sources), how, shortlist))


def test_rows_are_gathered_once() -> None:
    network = quantized_network(random_network(SHAPES["bart"]), Int8Form.DYNAMIC)
    how = replace(HOW, beams=2, banned=(5,), forced_first=9)
    model = lower_search(network, how, CPU, drawn_shortlist(network.shape, how, seed=0))
    (loop,) = [node for node in model.graph.node if node.op_type == "Loop"]
    (body,) = [attribute.g for attribute in loop.attribute if attribute.name == "body"]
    held = {one.name for one in model.graph.initializer if network.shape.written_words in one.dims}
    read = [node for node in body.node if held & set(node.input)]
    # Of all words a round reads the levels and the scale of the one that was written, and which of them end a text.
    assert [node.op_type for node in read] == ["Gather"] * 3
    assert not {node.op_type for node in body.node} & {"Transpose", "NonZero", "ScatterElements"}


def test_a_batch_has_a_list_for_every_text() -> None:
    network, how = random_network(SHAPES["bart"], seed=3), replace(HOW, beams=2)
    shortlist, sources = drawn_shortlist(network.shape, how, seed=5), [[5, 9, 14], [7, 7, 12]]
    steps = ListedSteps(NativeSteps(network, sources), [shortlist.words_for(source) for source in sources])
    together = generate(steps, starts(how, 2), how)
    alone = expected(lambda given: NativeSteps(network, given), how, shortlist, sources)
    assert_same(together, alone)


def test_words_of_which_there_are_no_rows_are_refused() -> None:
    network = random_network(UNTIED)
    assert network.output is not None
    network.output.projection = nn.Identity()
    with pytest.raises(Unsupported, match="no rows of a Identity"):
        lower_search(network, HOW, CPU, drawn_shortlist(UNTIED, HOW, seed=0))


def test_a_shortlist_that_does_not_fit_is_refused() -> None:
    shape = SHAPES["bart"]
    fits = drawn_shortlist(shape, HOW, seed=0)

    def refused(shortlist: Shortlist, of: ModelShape = shape, how: Generation = HOW) -> str:
        with pytest.raises(BadInput) as error:
            lower_search(random_network(of), how, CPU, shortlist)
        return str(error.value)

    assert "reads no source" in refused(fits, SHAPES["gpt2"])
    assert "cannot be copied" in refused(fits, SHAPES["marian"], replace(HOW, end=(2,)))
    wrong = "reads 50 tokens and writes 50"
    assert wrong in refused(replace(fits, rows=fits.rows[:49]))
    assert wrong in refused(replace(fits, rows=fits.rows + len(fits.behind)))
    assert wrong in refused(replace(fits, behind=fits.behind + 50))
    assert "the tokens 12 must always" in refused(replace(fits, always=np.setdiff1d(fits.always, [12])))
    assert "the tokens 12, 48 must" in refused(replace(fits, always=np.array([2])), how=replace(HOW, end=(12, 48, 2)))
    assert "1 words that may always" in refused(replace(fits, always=np.array([2])), how=replace(HOW, end=(2,)))
