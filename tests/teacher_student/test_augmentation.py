"""Changed copies of texts."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.vocabularies import word_piece_checkpoint

from teacher_student import augmentation
from teacher_student.augmentation import changed_copies, near_words

NEAR = {"good": ["fine", "great"], "bad": ["poor"], "film": ["movie"]}
TEXT = "A good film, NOT a bad one;\n  Good film"


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text)


@given(st.text(max_size=60), st.integers(0, 1000))
def test_a_copy_holds_the_words_of_its_text_or_near_ones(text: str, seed: int) -> None:
    (copy,) = changed_copies([text], NEAR, copies=1, seed=seed)
    allowed = {word.casefold() for word in words_of(text)}
    allowed |= {other for word in allowed for other in NEAR.get(word, ())}
    assert {word.casefold() for word in words_of(copy)} <= allowed
    assert bool(words_of(copy)) == bool(words_of(text))
    assert len(words_of(copy)) <= len(words_of(text))


def test_copies_come_text_by_text_and_the_seed_decides() -> None:
    texts = [f"good film number {number}" for number in range(50)]
    copies = list(changed_copies(texts, NEAR, copies=3, seed=7))
    assert len(copies) == 150
    assert copies == list(changed_copies(texts, NEAR, copies=3, seed=7))
    assert copies != list(changed_copies(texts, NEAR, copies=3, seed=8))
    assert copies[:50] != copies[50:100]
    for number, copy in enumerate(copies):
        rest = set(words_of(copy)) - {"good", "fine", "great", "film", "movie", "number"}
        assert rest <= {str(number % 50)}


def test_words_are_replaced_dropped_and_cut_as_often_as_said() -> None:
    texts = ["good bad film"] * 4000
    copies = [words_of(copy) for copy in changed_copies(texts, NEAR, copies=1, seed=0)]
    lengths = Counter(len(copy) for copy in copies)
    kept = sum(length * count for length, count in lengths.items())
    assert kept / 12000 == pytest.approx(1 - augmentation.DROPPED, abs=0.02)
    near = sum(word in ("fine", "great", "poor", "movie") for copy in copies for word in copy)
    assert near / 12000 == pytest.approx(augmentation.REPLACED, abs=0.02)
    longer = [words_of(copy) for copy in changed_copies(["x " * 40] * 2000, {}, copies=1, seed=0)]
    # Of 40 words about 36 stay; a span holds fewer, down to three.
    assert sum(len(copy) < 28 for copy in longer) / 2000 == pytest.approx(augmentation.CUT * 28 / 37, abs=0.04)


def test_the_case_of_a_word_and_what_is_between_words_stay() -> None:
    copies = set(changed_copies([TEXT], NEAR, copies=400, seed=1))
    assert any("Great" in copy or "Fine" in copy for copy in copies)
    assert not any("Movie" in copy for copy in copies)
    assert any(";\n  " in copy for copy in copies)
    assert any("WORSE" in copy for copy in changed_copies(["BAD BAD"], {"bad": ["worse"]}, copies=50, seed=0))
    assert not any("  good" in copy for copy in copies)


def test_near_words_are_those_of_the_table() -> None:
    checkpoint = word_piece_checkpoint()
    pieces = checkpoint.tokenizing._tokenizer.get_vocab()
    names = ["w11", "w2", "w3", "w4", "w5"]
    table = torch.eye(len(checkpoint.weights["embeddings.word.weight"]))
    table[pieces["w2"]] = table[pieces["w11"]] + 0.1 * table[pieces["w2"]]
    near = near_words(["W11 w2, w3", "w4 w5 w11"], checkpoint.tokenizing, table)
    assert sorted(near) == names
    assert near["w11"][0] == "w2"
    assert near["w2"][0] == "w11"
    assert all(len(others) == 4 and word not in others for word, others in near.items())
    assert near_words(["w2", "?"], checkpoint.tokenizing, table) == {}
    assert near_words([], checkpoint.tokenizing, table) == {}


def test_rare_words_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = word_piece_checkpoint()
    monkeypatch.setattr(augmentation, "WORDS", 2)
    near = near_words(["w4 w4 w4 w2 w2 w3"], checkpoint.tokenizing, checkpoint.weights["embeddings.word.weight"])
    assert near == {"w4": ["w2"], "w2": ["w4"]}
