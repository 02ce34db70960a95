"""A trimmed tokenizer cuts texts of kept pieces as before, and never falls back to the unknown piece."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.examples import tiny_tokenizing
from support.vocabularies import ALPHABET, KINDS, STRANGE, tokenizing_of, tokenizings, with_post_processor
from support.writing_tokenizers import LINES, TOKENIZERS

from compress.trimming.tokenizer import Trimmed, pieces_to_keep, trim_tokenizer
from models.errors import BadFile, Unsupported
from models.new_tokenizer import train_byte_level_bpe
from models.tokenizing import Tokenizing

LONG = 10_000
texts = st.text(alphabet=ALPHABET + STRANGE + "  ", max_size=20)


def pieces(tokenizing: Tokenizing) -> dict[str, int]:
    vocabulary: dict[str, int] = tokenizing._tokenizer.get_vocab(with_added_tokens=True)
    return vocabulary


def cut(tokenizing: Tokenizing, text: str) -> list[int]:
    return tokenizing.encode([text], max_length=LONG)[0].ids


def unknown(tokenizing: Tokenizing) -> int:
    return pieces(tokenizing)["[UNK]"]


def chosen(data: st.DataObject, tokenizing: Tokenizing) -> set[int]:
    return data.draw(st.sets(st.integers(0, tokenizing.highest_id)))


@given(st.data())
def test_texts_of_kept_pieces_are_cut_as_before(data: st.DataObject) -> None:
    tokenizing, text = data.draw(tokenizings()), data.draw(texts)
    before = cut(tokenizing, text)
    # What the text is made of is kept, and some of the rest.
    trimmed = trim_tokenizer(tokenizing, chosen(data, tokenizing) | set(before))
    assume(unknown(tokenizing) not in before)
    assert cut(trimmed.tokenizing, text) == [trimmed.numbers[number] for number in before]


@given(st.data())
def test_no_text_gets_an_unknown_piece_that_had_none(data: st.DataObject) -> None:
    tokenizing, text = data.draw(tokenizings()), data.draw(texts)
    assume(unknown(tokenizing) not in cut(tokenizing, text))
    trimmed = trim_tokenizer(tokenizing, chosen(data, tokenizing))
    after = cut(trimmed.tokenizing, text)
    assert unknown(trimmed.tokenizing) not in after
    assert max(after, default=0) < len(trimmed.rows)


@given(st.data())
def test_pieces_keep_their_text_their_order_and_leave_no_gaps(data: st.DataObject) -> None:
    tokenizing = data.draw(tokenizings())
    keep = chosen(data, tokenizing)
    trimmed = trim_tokenizer(tokenizing, keep)
    before, after = pieces(tokenizing), pieces(trimmed.tokenizing)
    assert sorted(after.values()) == list(range(len(trimmed.rows)))
    same = {piece: number for piece, number in after.items() if piece in before}
    assert {before[piece]: number for piece, number in same.items()} == trimmed.numbers
    assert sorted(trimmed.numbers) == sorted(trimmed.numbers, key=trimmed.numbers.__getitem__)
    assert keep & set(before.values()) <= trimmed.numbers.keys()
    assert {"[UNK]", "[CLS]", "[SEP]", "[PAD]"} <= same.keys()
    # Forms of characters that were no pieces of their own come with the vector of an old piece.
    assert all(row in before.values() for row in trimmed.rows)
    assert all(len(piece.removeprefix("##")) == 1 for piece in after.keys() - before.keys())


@given(st.data())
def test_trimming_twice_is_trimming_once(data: st.DataObject) -> None:
    tokenizing = data.draw(tokenizings())
    once = trim_tokenizer(tokenizing, chosen(data, tokenizing))
    assume(len(once.rows) == len(once.numbers))  # a form may itself be read as the start of a word
    again = trim_tokenizer(once.tokenizing, range(len(once.rows)))
    assert again.rows == tuple(range(len(once.rows)))
    assert again.tokenizing == once.tokenizing


@pytest.mark.parametrize("kind", KINDS)
def test_everything_kept_is_the_same_tokenizer(kind: str) -> None:
    tokenizing = tokenizing_of(
        kind, {"a": -1.0, "b": -2.0, "ab": -1.5, "##a": -3.0, "##b": -2.0, "#": -9.0, "###": -9.0}
    )
    trimmed = trim_tokenizer(tokenizing, range(tokenizing.vocab_size))
    assert json.loads(trimmed.tokenizing.json) == json.loads(tokenizing.json)
    assert trimmed.rows == tuple(range(tokenizing.vocab_size))


def test_the_first_case_that_keeping_alone_does_not_solve() -> None:
    # "abcdx" is ab + ##cdx; without ab it is a + ##bc + ##d, and nothing stands for the x.
    vocabulary = {
        "a": 0.0,
        "##a": 0.0,
        "##b": 0.0,
        "##c": 0.0,
        "##d": 0.0,
        "ab": 0.0,
        "##bc": 0.0,
        "##cdx": 0.0,
        "x": 0.0,
    }
    tokenizing = tokenizing_of("WordPiece", vocabulary)
    known = pieces(tokenizing)
    trimmed = trim_tokenizer(tokenizing, {number for piece, number in known.items() if piece != "ab"})
    assert "##x" in pieces(trimmed.tokenizing)
    assert trimmed.rows[pieces(trimmed.tokenizing)["##x"]] == known["x"]
    assert unknown(trimmed.tokenizing) not in cut(trimmed.tokenizing, "abcdx")


@pytest.mark.parametrize("processor", ["template", "bert", "roberta", "sequence"])
@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_numbered_anew(kind: str, processor: str) -> None:
    first = {f"{letter}{other}": -1.0 for letter in "ab" for other in "ab"}  # so that the special tokens move
    tokenizing = with_post_processor(tokenizing_of(kind, first | {"a": -2.0, "b": -2.0}, special_last=True), processor)
    trimmed = trim_tokenizer(tokenizing, ())
    now = pieces(trimmed.tokenizing)
    assert now["[CLS]"] != pieces(tokenizing)["[CLS]"]
    single = trimmed.tokenizing.encode(["a"], max_length=LONG)[0].ids
    assert (single[0], single[-1]) == (now["[CLS]"], now["[SEP]"])
    pair = trimmed.tokenizing.encode(["a"], ["b"], max_length=LONG)[0].ids
    assert [number for number in pair if number == now["[SEP]"]] == [now["[SEP]"]] * (
        3 if processor == "roberta" else 2
    )
    assert trimmed.tokenizing.pad_token_id == now["[PAD]"]
    assert json.loads(trimmed.tokenizing.json)["padding"]["pad_id"] == now["[PAD]"]
    assert trimmed.tokenizing.config["pad_token_id"] == now["[PAD]"]
    decoder = trimmed.tokenizing.config["added_tokens_decoder"]
    assert {token["content"]: int(number) for number, token in decoder.items()} == {
        name: now[name] for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    }


def test_tokens_that_the_model_does_not_hold_follow_it() -> None:
    tokenizing = tokenizing_of("WordPiece", {"a": 0.0, "##a": 0.0, "b": 0.0, "##b": 0.0, "ab": 0.0})
    content = json.loads(tokenizing.json)
    content["added_tokens"].append({**content["added_tokens"][0], "id": tokenizing.vocab_size, "content": "<extra>"})
    more = replace(tokenizing, json=json.dumps(content))
    trimmed = trim_tokenizer(more, ())
    assert cut(more, "a<extra>")[-1] == more.highest_id
    assert cut(trimmed.tokenizing, "a<extra>")[-1] == trimmed.tokenizing.highest_id == len(trimmed.rows) - 1
    assert trimmed.rows[-1] == more.highest_id


def test_the_pieces_that_are_seen_are_kept() -> None:
    tokenizing = tokenizing_of("WordPiece", dict.fromkeys(["a", "##a", "aa", "aaa", "aaaa", "aaaaa", "#", "###"], 0.0))
    known = pieces(tokenizing)
    counts = np.zeros(tokenizing.vocab_size, dtype=np.int64)
    for piece, count in (("aa", 5), ("aaa", 2), ("aaaa", 5), ("aaaaa", 1)):
        counts[known[piece]] = count

    def kept(**choice: Any) -> set[str]:
        numbers = pieces_to_keep(tokenizing, counts, **choice)
        return {piece for piece, number in known.items() if number in numbers and len(piece.strip("#")) > 1} - {
            "[UNK]", "[CLS]", "[SEP]", "[PAD]",
        }  # fmt: skip

    assert kept() == {"aa", "aaa", "aaaa", "aaaaa"}
    assert kept(min_count=2) == {"aa", "aaa", "aaaa"}
    assert kept(min_count=3) == {"aa", "aaaa"}
    assert kept(max_pieces=1) == {"aa"}  # the lower number first among equals
    assert kept(max_pieces=2) == {"aa", "aaaa"}
    assert kept(min_count=6) == set()
    assert kept(min_count=6, first=7) == {"aa"}  # after four special tokens and the two forms of a character
    assert kept(min_count=3, first=8) == {"aa", "aaa", "aaaa"}


def test_a_byte_level_tokenizer_writes_every_text(tmp_path: Path) -> None:
    corpus = ["the cat sat on the mat", "def loads(text): return json", "naïve café"] * 4
    tokenizing = train_byte_level_bpe(corpus, vocab_size=340, max_length=64)
    numbers = [number for text in corpus[:1] for number in cut(tokenizing, text)]
    keep = pieces_to_keep(tokenizing, np.bincount(numbers, minlength=tokenizing.vocab_size))
    trimmed = trim_tokenizer(tokenizing, keep)
    assert len(trimmed.rows) < tokenizing.vocab_size
    assert cut(trimmed.tokenizing, corpus[0]) == [trimmed.numbers[number] for number in cut(tokenizing, corpus[0])]
    strange = "日本 \U0001f916 naïve\x00 loads"
    assert trimmed.tokenizing._tokenizer.decode(cut(trimmed.tokenizing, strange)) == strange
    trimmed.tokenizing.save(tmp_path)
    assert Tokenizing.load(tmp_path) == trimmed.tokenizing


sentences = st.lists(st.sampled_from([*"\n".join(LINES).split(), "日本", "zé\U0001f916", "o", "cats"]), max_size=6).map(
    " ".join
)
learnt = cache(lambda kind: TOKENIZERS[kind]())


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=40)
@given(st.data())
def test_tokenizers_of_what_writes(kind: str, data: st.DataObject) -> None:
    tokenizing, text, other = learnt(kind), data.draw(sentences), data.draw(sentences)
    before, elsewhere = tokenizing.plain([text, other])
    trimmed = trim_tokenizer(tokenizing, chosen(data, tokenizing) | set(before))
    after, now = trimmed.tokenizing.plain([text, other])
    assert after == [trimmed.numbers[number] for number in before]
    missing = pieces(tokenizing)["<unk>"]
    assert (trimmed.numbers[missing] in now) is (missing in elsewhere)
    # What has no unknown piece is written back letter by letter.
    assert trimmed.tokenizing.decoded([now]) == tokenizing.decoded([elsewhere])


def test_other_tokenizers_are_refused() -> None:
    with pytest.raises(Unsupported, match="WordLevel"):
        trim_tokenizer(tiny_tokenizing(), ())
    tokenizing = tokenizing_of("WordPiece", {"a": 0.0})
    content = json.loads(tokenizing.json)
    strange = {**content, "post_processor": {"type": "Novel"}}
    with pytest.raises(Unsupported, match="Novel"):
        trim_tokenizer(replace(tokenizing, json=json.dumps(strange)), ())


def test_a_special_token_that_is_not_there_is_named() -> None:
    tokenizing = with_post_processor(tokenizing_of("WordPiece", {"a": 0.0}), "bert")
    content = json.loads(tokenizing.json)
    content["post_processor"]["sep"][1] = 77
    with pytest.raises(BadFile, match="token 77"):
        trim_tokenizer(replace(tokenizing, json=json.dumps(content)), ())


def test_the_teacher_on_real_sentences(trained_teacher: Path) -> None:
    tokenizing = Tokenizing.load(trained_teacher)
    corpus = ["a charming and often affecting journey", "unflinchingly bleak and desperate"]
    numbers = [number for text in corpus for number in cut(tokenizing, text)]
    trimmed = trim_tokenizer(tokenizing, pieces_to_keep(tokenizing, np.bincount(numbers)))
    assert isinstance(trimmed, Trimmed)
    assert len(trimmed.rows) < 2200
    for text in corpus:
        assert cut(trimmed.tokenizing, text) == [trimmed.numbers[number] for number in cut(tokenizing, text)]
    assert unknown(trimmed.tokenizing) not in cut(trimmed.tokenizing, "Xylophones! 東京 naïve e-mail@example.org")


def test_places_that_were_left_free_are_not_among_the_first() -> None:
    tokenizing = tokenizing_of("WordPiece", dict.fromkeys(["[unused0]", "[unused1]", "a", "##a", "aa", "aaa"], 0.0))
    known = pieces(tokenizing)
    kept = pieces_to_keep(tokenizing, np.zeros(tokenizing.vocab_size, dtype=np.int64), first=7)
    assert {piece for piece, number in known.items() if number in kept} == {
        "[UNK]", "[CLS]", "[SEP]", "[PAD]", "a", "##a", "aa",
    }  # fmt: skip
