"""Words chosen by the values of a graph, on toys without a network, beside the search in numpy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.chosen_words import Choice, Round
from export.emit import Emit
from export.lowering import GROUPS, LOWERINGS
from export.session import open_session
from export.shortlist import ListedSteps
from export.target import MOBILE
from export.values import Carried, Port, Value, build
from models.beams import Hypothesis
from models.generation import Prompts, generate
from models.generation_settings import Ending, Generation
from models.token_scores import Ids, Scores

WORDS, PAD = 7, 6
FIRST = 1


class Chain:
    """Steps of a chain: the logits of a word depend on the two words before it."""

    positions = 99

    def __init__(self, seed: int) -> None:
        self.table = np.random.default_rng(seed).normal(size=(WORDS, WORDS, WORDS)).astype(np.float32) * 2
        self.rows: list[tuple[int, int]] = []

    def begin(self, prompts: Prompts) -> Scores:
        self.rows = [(FIRST, prompt[-1]) for prompt in prompts]
        return self._logits()

    def advance(self, tokens: Ids, order: Ids) -> Scores:
        self.rows = [(self.rows[row][1], int(token)) for row, token in zip(order, tokens, strict=True)]
        return self._logits()

    def _logits(self) -> Scores:
        return np.stack([self.table[row] for row in self.rows])


def in_graph(chain: Chain, how: Generation, start: int, *, rows: int | str, words: Ids | None = None) -> list[Any]:
    """Return what a graph of the same chain gives; it begins with `rows` rows, or where that is a name with one. It
    weighs all words, or these alone.
    """
    emit, begun = Emit(MOBILE, LOWERINGS, GROUPS), how.beams if isinstance(rows, int) else 1
    number, tokens = Value(Port("round", "int64", ())), Value(Port("tokens", "int64", (rows, 1)))
    before = Value(Port("before", "int64", (rows, 1)))
    line = emit.node("Mul", before, emit.constant(np.array(WORDS), "words"), role="line")
    every = chain.table.reshape(WORDS * WORDS, WORDS)
    table = emit.constant(every if words is None else every[:, words], "table")
    logits = emit.node("Gather", table, emit.node("Add", line, tokens, role="place"), role="logits")
    first, ahead = (emit.constant(np.full((begun, 1), token), "begun") for token in (start, FIRST))
    kept = Carried(ahead, before, emit.node("Identity", tokens, role="now"))
    one = Round(number, rows, first, tokens, logits, [kept])
    most = Value(Port("max_tokens", "int64", (), default=how.max_tokens))
    listed = None if words is None else emit.constant(words, "listed")
    room = emit.node("Identity", most, role="room")
    choice = Choice(emit, how, words=WORDS, pad=PAD, room=room, listed=listed)
    found = choice.greedy(one) if how.beams == 1 else choice.searched(one)
    ports = (Port("sequences", "int64", ("beams", "time")), Port("scores", "float32", ("beams",)))
    model = build([most], dict(zip(ports, found, strict=False)), opset=17, name="chain")
    return list(open_session(model.SerializeToString(), threads=1).run(None, {}))


def hypotheses(found: list[Any], how: Generation) -> list[Hypothesis]:
    """Return the texts of a graph's outputs; behind an end there is padding alone."""
    texts, scores = found[0].tolist(), found[1].tolist() if how.beams > 1 else [None]
    read = []
    for text, score in zip(texts, scores, strict=True):
        end = next((place for place, token in enumerate(text) if token in how.end), len(text))
        assert set(text[end + 1 :]) <= {PAD}
        read.append(Hypothesis(tuple(text[:end]), end < len(text), score))
    return read


def assert_same(chain: Chain, how: Generation, start: int, rows: int | str, words: Ids | None = None) -> None:
    (expected,) = generate(chain if words is None else ListedSteps(chain, [words]), [[start]], how)
    found = hypotheses(in_graph(chain, how, start, rows=rows, words=words), how)
    assert [text[:2] for text in found] == [text[:2] for text in expected]
    if how.beams > 1:
        assert [text.score for text in found] == pytest.approx([text.score for text in expected], abs=1e-5)


@st.composite
def searches(draw: st.DrawFn) -> Generation:
    """Return settings of a search; what is banned leaves words to write."""
    longest = draw(st.integers(1, 7))
    return Generation(
        end=tuple(sorted(draw(st.sets(st.integers(0, 2), min_size=1, max_size=2)))),
        max_tokens=longest,
        min_tokens=draw(st.integers(0, longest)),
        beams=draw(st.sampled_from([1, 2, 3, 4])),
        length_penalty=draw(st.sampled_from([0.0, 1.0, -0.5, 2.0, 0.7])),
        ending=draw(st.sampled_from(Ending)),
        forced_first=draw(st.sampled_from([None, 3])),
        forced_last=draw(st.sampled_from([None, 2])),
        banned=draw(st.sampled_from([(), (5,), (4, 5)])),
        renormalize=draw(st.booleans()),
    )


@settings(max_examples=60)
@given(searches(), st.integers(0, 99), st.booleans())
def test_a_graph_finds_what_the_search_finds(how: Generation, seed: int, apart: bool) -> None:
    assert_same(Chain(seed), how, start=seed % WORDS, rows="rows" if apart else how.beams)


@settings(max_examples=40)
@given(searches(), st.integers(0, 99), st.sets(st.integers(4, 6)))
def test_a_graph_finds_it_among_the_words_of_a_list(how: Generation, seed: int, others: set[int]) -> None:
    assert_same(Chain(seed), how, seed % WORDS, "rows", np.array([0, 1, 2, 3, *sorted(others)]))


@pytest.mark.parametrize("ending", Ending)
def test_a_search_ends_before_there_is_no_room(ending: Ending) -> None:
    how = Generation(end=(0, 1), max_tokens=40, beams=2, ending=ending, length_penalty=0.2)
    for seed in range(3):
        assert_same(Chain(seed), how, 2, "rows")
    assert in_graph(Chain(0), how, 2, rows="rows")[0].shape[1] < 40


def test_a_caller_may_want_less() -> None:
    how = Generation(end=(), max_tokens=6, min_tokens=6, beams=3)
    chain = Chain(5)
    assert in_graph(chain, how, 2, rows=3)[0].shape == (3, 6)
    assert_same(chain, replace(how, max_tokens=4, min_tokens=4), 2, 3)
