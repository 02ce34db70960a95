"""Which words are listed for a source: a lexicon fitted to pairs, and the shortlist made of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.examples import random_written, tiny_tokenizing, writing_checkpoint

from compress.lexicon import ROUNDS, Lexicon, fitted_lexicon
from compress.settings import ShortlistSettings
from compress.shortlisting import shortlist_of
from models.content import Sourced, Tokens
from models.encoded import Encoded
from models.errors import BadInput
from models.generation_settings import Generation

# The, house, book, a: das Haus, das Buch, ein Buch (Koehn 2010, figure 4.3).
BOOKS = [([10, 11], [20, 21]), ([10, 12], [20, 22]), ([13, 12], [23, 22])]


def pairs(rows: list[tuple[list[int], list[int]]]) -> Encoded:
    """Return rows of what is read and what is written."""
    sources, texts = zip(*rows, strict=True)
    flat = [np.array([token for text in side for token in text], dtype=np.int32) for side in (sources, texts)]
    starts, offsets = (np.cumsum([0, *map(len, side)]).astype(np.int64) for side in (sources, texts))
    read = Tokens(flat[0], np.full(len(rows), -1, dtype=np.int32))
    targets = np.stack([flat[1].astype(np.int64), np.ones(len(flat[1]), dtype=np.int64)], axis=1)
    return Encoded(Sourced(flat[1], read, starts, tiny_tokenizing()), offsets, targets, 0, "pairs", by_token=True)


def counted(rows: list[tuple[list[int], list[int]]]) -> dict[tuple[int, int], float]:
    """Return the expected counts of model 1, pair by pair, with an empty token (-1) in every source."""
    shares: dict[tuple[int, int], float] = {}
    counts: dict[tuple[int, int], float] = {}
    for _ in range(ROUNDS):
        counts = {}
        for source, text in rows:
            for word in text:
                reasons = [*source, -1]
                total = sum(shares.get((token, word), 1.0) for token in reasons)
                for token in reasons:
                    part = shares.get((token, word), 1.0) / total
                    counts[token, word] = counts.get((token, word), 0.0) + part
        totals: dict[int, float] = {}
        for (token, _), count in counts.items():
            totals[token] = totals.get(token, 0.0) + count
        shares = {pair: count / totals[pair[0]] for pair, count in counts.items()}
    return {pair: count for pair, count in counts.items() if pair[0] >= 0}


def told(lexicon: Lexicon) -> dict[tuple[int, int], float]:
    return {(int(read), int(word)): float(count) for read, word, count in zip(*lexicon, strict=True)}


def test_a_lexicon_is_that_of_model_1() -> None:
    data = random_written(12, behind=True, seed=4)
    rows = [
        (data.written.source_of(row), data.targets[data.offsets[row] : data.offsets[row + 1], 0].tolist())
        for row in range(12)
    ]
    for some in (BOOKS, rows):
        assert told(fitted_lexicon(pairs(some), tokens=50, seed=0)) == pytest.approx(counted(some))


def test_words_find_what_they_stand_for() -> None:
    found = told(fitted_lexicon(pairs(BOOKS * 3), tokens=50, seed=0))
    for read, word in ((10, 20), (11, 21), (12, 22), (13, 23)):
        assert found[read, word] == max(count for pair, count in found.items() if pair[0] == read)


def test_of_much_data_some_rows_are_drawn() -> None:
    rows = [([token], [token + 20]) for token in range(2, 22)]
    drawn = [fitted_lexicon(pairs(rows), tokens=50, seed=seed, most=8) for seed in (0, 0, 1)]
    assert all(len(one.read) == 4 for one in drawn)
    np.testing.assert_array_equal(drawn[0].read, drawn[1].read)
    assert set(drawn[0].read.tolist()) != set(drawn[2].read.tolist())


def test_words_that_are_not_known_explain_nothing() -> None:
    rows = [([10, 11], [20, -1]), ([12], [-1])]
    assert told(fitted_lexicon(pairs(rows), tokens=50, seed=0)) == pytest.approx(counted([([10, 11], [20])]))


def test_a_shortlist_has_what_is_written_often_and_what_is_written_for_a_token() -> None:
    parent = writing_checkpoint("bart")
    parent = replace(parent, generation=Generation(start=1, end=(2,), forced_last=7, max_tokens=8))
    rows = [*BOOKS * 3, ([10], [20, 20, 30]), ([14], [31, 32, 33, 33])]
    found = shortlist_of(parent, pairs(rows), ShortlistSettings(first=1, words=2), seed=0)
    assert found.always.tolist() == [2, 7, 20]  # what ends a text, what is forced, and the most frequent word
    assert {*found.words_for([11]).tolist()} >= {2, 7, 20, 21, 11}
    assert len(found.words_for([14])) == 6 and 33 in found.words_for([14])  # two of the three behind it, and itself
    assert found.words_for([40, 41]).tolist() == [2, 7, 20, 40, 41]  # nothing is known of them
    assert parent.generation is not None
    found.check(parent.shape, parent.generation)
    assert not np.isin(found.behind[1:, 0], found.always).any()


def test_numbers_that_mean_other_words_are_not_copied() -> None:
    parent = writing_checkpoint("marian")
    found = shortlist_of(parent, pairs(BOOKS), ShortlistSettings(first=2), seed=0)
    assert 30 not in found.words_for([30]) and 21 in found.words_for([11])


def test_what_gives_no_shortlist_is_refused() -> None:
    with pytest.raises(BadInput, match="reads no source"):
        shortlist_of(writing_checkpoint("gpt2"), pairs(BOOKS), ShortlistSettings(), seed=0)
    with pytest.raises(BadInput, match="nothing says what is written"):
        shortlist_of(writing_checkpoint("bart"), pairs([([10], [-1])]), ShortlistSettings(), seed=0)
