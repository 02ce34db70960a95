"""Writing by ONNX Runtime: the logits of the native steps, and so the same tokens, greedily and by beams."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.networks import quantized_network, random_network
from support.writing_shapes import SHAPES

from export.bound import Buffers, Room
from export.graph_file import graph_file
from export.parity_writing import FLOAT_WORDS_BOUND, compare_writing, words_bound
from export.runtime_steps import RuntimeSteps, WriterSessions, writer_sessions
from export.session import open_session
from export.target import CPU
from models.errors import BadInput, Mismatch
from models.generation import Steps, generate, starts
from models.generation_settings import Generation
from models.kinds import Int8Form
from models.native_steps import NativeSteps
from models.network import Network

SOURCES = [[5, 9, 14, 3, 22, 41, 8], [30], [7, 7, 12, 45]]
WAYS = {
    "greedy": Generation(start=1, end=(2,), max_tokens=9),
    "greedy, nothing twice": Generation(start=1, end=(2,), max_tokens=9, no_repeat=2),
    "beams": Generation(start=1, end=(2,), max_tokens=9, beams=4),
    "beams, short": Generation(start=1, end=(2, 7), max_tokens=9, beams=3, length_penalty=-1.0),
}


def sessions_of(network: Network) -> WriterSessions:
    graph = graph_file(network, CPU)
    return writer_sessions(network.shape, graph.data, graph.encoder_data, threads=1)


@pytest.fixture(scope="module", params=SHAPES)
def pair(request: pytest.FixtureRequest) -> tuple[Network, WriterSessions]:
    network = random_network(SHAPES[request.param], seed=3)
    return network, sessions_of(network)


def both(pair: tuple[Network, WriterSessions], sources: list[list[int]] = SOURCES) -> tuple[Steps, Steps]:
    network, sessions = pair
    read = None if network.decoder is None else sources
    return NativeSteps(network, read), RuntimeSteps(sessions, read)


@pytest.mark.parametrize("way", WAYS)
def test_the_runtime_writes_what_the_network_writes(pair: tuple[Network, WriterSessions], way: str) -> None:
    settings = WAYS[way]
    prompts = SOURCES if pair[0].decoder is None else starts(settings, len(SOURCES))
    expected, found = (generate(steps, prompts, settings) for steps in both(pair))
    assert [[text.tokens for text in texts] for texts in found] == [
        [text.tokens for text in texts] for texts in expected
    ]
    assert len({token for texts in expected for text in texts for token in text.tokens}) > 1


def test_rows_that_change_places_keep_their_caches(pair: tuple[Network, WriterSessions]) -> None:
    steps = both(pair)
    prompts = SOURCES if pair[0].decoder is None else [[1]] * 3
    for expected, found in [(one.begin(prompts).copy(), other.begin(prompts).copy()) for one, other in [steps]]:
        np.testing.assert_allclose(found, expected, atol=1e-4)
    for tokens, order in (([3, 4, 5, 6], [2, 2, 0, 1]), ([9, 8], [3, 0]), ([1, 2], [0, 1]), ([4, 6], [1, 0])):
        expected, found = (one.advance(np.array(tokens), np.array(order)).copy() for one in steps)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_prompt_is_read_at_once_and_gone_on_from() -> None:
    network = random_network(SHAPES["llama"], seed=3)
    steps, prompt = RuntimeSteps(sessions_of(network)), SOURCES[0]
    with torch.inference_mode():
        every, _ = network.decode(torch.tensor([[*prompt, 6]]))
    np.testing.assert_allclose(steps.read(prompt), every[0, :-1].numpy(), atol=1e-4)
    behind = steps.advance(np.array([6]), np.array([0]))
    np.testing.assert_allclose(behind, every[:, -1].numpy(), atol=1e-4)


def test_caches_stay_where_they_are() -> None:
    room, buffers = Room(), Buffers()
    room.other((2, 3))[:] = np.arange(6).reshape(2, 3)
    room.turn()
    first = room.now((2, 3))
    room.taken(np.array([1, 1, 0]), (2, 3))
    assert room.now((3, 3)).tolist() == [[3, 4, 5], [3, 4, 5], [0, 1, 2]]
    room.turn()
    assert np.shares_memory(room.now((2, 3)), first)
    large = room.other((5000,))
    room.turn()
    room.turn()
    assert np.shares_memory(room.other((9000,)), large)  # made with room for twice as much
    assert np.shares_memory(buffers.take("a", (4, 5)), buffers.take("a", (1, 2)))


def test_logits_are_those_of_the_last_token_alone_where_no_more_are_asked_for() -> None:
    """Whoever does not know of it gets all."""
    session = sessions_of(random_network(SHAPES["gpt2"])).writer
    assert [port.name for port in session.get_overridable_initializers()] == ["num_logits_to_keep"]
    past = {
        f"past_key_values.{i}.{kind}": np.zeros((1, 4, 0, 8), np.float32) for i in (0, 1) for kind in ("key", "value")
    }
    given = {"input_ids": np.array([[5, 4, 3]]), "attention_mask": np.ones((1, 3), np.int64)} | past
    given["position_ids"] = np.arange(3)[None]
    (every,) = session.run(["logits"], given)
    assert every.shape == (1, 3, 50)
    for kept in (0, 1, 2):
        (last,) = session.run(["logits"], {**given, "num_logits_to_keep": np.array(kept)})
        np.testing.assert_allclose(last, every[:, -kept:], atol=1e-6)


@pytest.mark.parametrize("name", ["bart", "t5", "llama"])
def test_int8_texts_are_compared_token_by_token(name: str) -> None:
    network = quantized_network(random_network(SHAPES[name]), Int8Form.DYNAMIC)
    batches = [{"input_ids": np.array([[5, 9, 14, 3]])}, {"input_ids": np.array([[7]])}]
    if network.decoder is not None:
        batches = [{**one, "decoder_input_ids": np.array([[1, 4, 9, 30, 2]])} for one in batches]
    found = compare_writing(network, sessions_of(network), batches)
    assert found.examples == (10 if network.decoder is not None else 5)
    assert found.max_abs < 0.05
    found.check(words_bound(network))
    other = compare_writing(random_network(SHAPES[name]), sessions_of(network), batches)
    with pytest.raises(Mismatch):
        other.check(FLOAT_WORDS_BOUND)
    with pytest.raises(BadInput, match="at least one"):
        compare_writing(network, sessions_of(network), [])


def test_what_does_not_fit_is_refused() -> None:
    alone, behind = (sessions_of(random_network(SHAPES[name])) for name in ("gpt2", "bart"))
    with pytest.raises(BadInput, match="reads no source"):
        RuntimeSteps(alone, SOURCES)
    with pytest.raises(BadInput, match="needs a source"):
        RuntimeSteps(behind)
    with pytest.raises(BadInput, match="text 1 is empty"):
        RuntimeSteps(behind, [[]])
    with pytest.raises(BadInput, match="41 tokens, and the model reads 38"):
        RuntimeSteps(behind, [[3] * 41])
    with pytest.raises(BadInput, match="the token 50"):
        RuntimeSteps(alone).begin([[50]])
    with pytest.raises(BadInput, match="is not read alone"):
        RuntimeSteps(behind, SOURCES).read([1])
    with pytest.raises(BadInput, match="1 starts for 3 sources"):
        RuntimeSteps(behind, SOURCES).begin([[1]])


def test_sessions_may_be_bytes() -> None:
    graph = graph_file(random_network(SHAPES["gpt2"]), CPU)
    assert open_session(graph.data, threads=1).get_outputs()[0].name == "logits"
