"""Beam search on toys that can be searched whole, without a network."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from models.generation import Prompts, generate, stream
from models.generation_settings import Ending, Generation
from models.token_scores import Ids, Scores, log_shares

END, WORDS = 0, 5


class Chain:
    """Steps of a chain: the logits of a word depend on the two words before it, and on the text's number."""

    positions = 99

    def __init__(self, seed: int) -> None:
        self.table = np.random.default_rng(seed).normal(size=(3, WORDS, WORDS, WORDS)).astype(np.float32) * 2
        self.rows: list[tuple[int, int, int]] = []
        self.calls: list[int] = []

    def begin(self, prompts: Prompts) -> Scores:
        self.rows = [(number, 1, prompt[-1]) for number, prompt in enumerate(prompts)]
        return self._logits()

    def advance(self, tokens: Ids, order: Ids) -> Scores:
        rows = [self.rows[place] for place in order]
        self.rows = [(number, last, int(token)) for (number, _, last), token in zip(rows, tokens, strict=True)]
        return self._logits()

    def _logits(self) -> Scores:
        self.calls.append(len(self.rows))
        return np.stack([self.table[row] for row in self.rows])

    def score(self, number: int, prompt: int, text: tuple[int, ...]) -> float:
        """Return the sum of a text's log shares, its end included."""
        before, last, total = 1, prompt, 0.0
        for token in text:
            total += float(log_shares(self.table[number, before, last][None])[0, token])
            before, last = last, token
        return total


def every_text(longest: int) -> list[tuple[int, ...]]:
    """Return every text that ends, or is as long as there is room."""
    ended = [(*words, END) for length in range(longest) for words in itertools.product(range(1, WORDS), repeat=length)]
    return ended + list(itertools.product(range(1, WORDS), repeat=longest))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("penalty", [0.0, 1.0, -0.5, 2.0])
@pytest.mark.parametrize("longest", [2, 4])
def test_beams_find_the_best_texts_and_their_scores(seed: int, penalty: float, longest: int) -> None:
    chain = Chain(seed)
    settings = Generation(end=(END,), max_tokens=longest, beams=WORDS, length_penalty=penalty, ending=Ending.NEVER)
    every = every_text(longest)
    best = sorted((chain.score(0, 2, text) / len(text) ** penalty for text in every), reverse=True)
    (texts,) = generate(chain, [[2]], settings)
    assert len({text.tokens for text in texts}) == len(texts) == WORDS
    for text, wanted in zip(texts, best, strict=False):
        whole = (*text.tokens, END) if text.ended else text.tokens
        assert whole in every
        score = chain.score(0, 2, whole) / len(whole) ** penalty
        assert text.score == pytest.approx(score, abs=1e-4)
        # Two words: no beginning is lost, so that the search is exhaustive.
        assert score == pytest.approx(wanted, abs=1e-4) or (longest > 2 and score < wanted)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ending", Ending)
def test_texts_leave_the_batch_when_they_are_over(seed: int, ending: Ending) -> None:
    settings = Generation(end=(END,), max_tokens=8, beams=3, ending=ending)
    chain = Chain(seed)
    together = generate(chain, [[1], [2], [3]], settings)
    assert chain.calls[0] == 3
    assert all(later <= before for before, later in itertools.pairwise(chain.calls[1:]))
    for number, texts in enumerate(together):
        alone = Chain(seed)
        alone.table = alone.table[[number, number, number]]
        assert generate(alone, [[number + 1]], settings) == [texts]


def test_one_beam_is_the_likeliest_word() -> None:
    for seed in range(5):
        chain = Chain(seed)
        said = list(stream(chain, [[1], [4]], Generation(end=(END,), max_tokens=6)))
        for number, prompt in enumerate((1, 4)):
            before, last = 1, prompt
            for row in said:
                token = row[number]
                if token is None:
                    assert last == END
                    continue
                assert token == int(chain.table[number, before, last].argmax())
                before, last = last, token


def test_forced_words_and_banned_ones() -> None:
    settings = Generation(end=(END,), max_tokens=5, beams=2, forced_first=3, forced_last=END, banned=(2,), min_tokens=3)
    for texts in generate(Chain(0), [[1], [2]], settings):
        for text in texts:
            assert text.ended
            assert text.tokens[0] == 3
            assert 2 not in text.tokens
            assert 3 <= len(text.tokens) <= 4
