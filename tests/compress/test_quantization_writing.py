"""Models that write, in int8 as the quantize stage makes it, against their graphs."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from support.examples import tiny_tokenizing
from support.networks import random_network
from support.writing_shapes import SHAPES

from compress.quantization.schemes import forms_of, linear_paths, quantize, table_paths
from export.graph_file import graph_file
from export.runtime_steps import RuntimeSteps, writer_sessions
from export.target import TARGETS
from models.checkpoint import Checkpoint
from models.generation import Steps, generate, starts
from models.generation_settings import Generation
from models.kinds import Int8Form
from models.native_steps import NativeSteps

TEXTS, HOW = 12, Generation(start=1, end=(2,), max_tokens=8, min_tokens=8)


@cache
def in_int8(name: str) -> Checkpoint:
    network = random_network(SHAPES[name], seed=5)
    checkpoint = Checkpoint(network.shape, {}, tiny_tokenizing(), HOW).of(network)
    return quantize(checkpoint, forms_of(checkpoint))


def written(steps: Steps, text: list[int], *, behind: bool) -> tuple[int, ...]:
    ((best, *_),) = generate(steps, starts(HOW, 1) if behind else [text], HOW)
    return best.tokens


def drawn_texts() -> list[list[int]]:
    draw = np.random.default_rng(0)
    return [draw.integers(3, 50, draw.integers(1, 9)).tolist() for _ in range(TEXTS)]


@cache
def written_by_the_network(name: str) -> list[tuple[int, ...]]:
    network, behind = in_int8(name).network(), SHAPES[name].decoder is not None
    return [written(NativeSteps(network, [text] if behind else None), text, behind=behind) for text in drawn_texts()]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", SHAPES)
def test_a_graph_in_int8_writes_what_the_network_writes(name: str, target: str) -> None:
    network = in_int8(name).network()
    graph = graph_file(network, TARGETS[target])
    loaded = writer_sessions(network.shape, graph.data, graph.encoder_data, threads=1)
    behind = graph.encoder is not None
    found = [written(RuntimeSteps(loaded, [text] if behind else None), text, behind=behind) for text in drawn_texts()]
    same = [np.equal(*both).mean() for both in zip(written_by_the_network(name), found, strict=True)]
    assert np.mean(same) > 0.95


@pytest.mark.parametrize("name", SHAPES)
def test_everything_that_reads_and_writes_is_in_int8_by_channel(name: str) -> None:
    checkpoint = in_int8(name)
    forms, shape = dict(checkpoint.shape.int8), SHAPES[name]
    linear = linear_paths(shape)
    assert {path for path, form in forms.items() if form is Int8Form.DYNAMIC} == set(linear)
    assert {path for path, form in forms.items() if form is Int8Form.TABLE} == set(table_paths(shape))
    assert shape.decoder is None or {"layers.0.ffn.up", "decoder.layers.0.cross.query"} <= set(linear)
    for path in forms:
        rows, *_ = checkpoint.weights[f"{path}.weight"].shape
        assert checkpoint.weights[f"{path}.weight_scale"].shape == (rows,)
