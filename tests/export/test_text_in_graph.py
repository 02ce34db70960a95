from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.images import image_shape
from support.networks import random_network, tiny_shape
from support.text_tokenizers import TEXTS, bert_tokenizing, changed, roberta_tokenizing
from support.writing_shapes import SHAPES

from compress.trimming.tokenizer import trim_tokenizer
from export.session import open_session
from export.target import CPU, MOBILE
from export.text.comparison import compare_tokens
from export.text.feeding import texts_to_feed
from export.text.hard_texts import hard_texts
from export.text_in_graph import require_text_in, text_graph, tokens_graph
from models.errors import BadInput, Mismatch, Unsupported
from models.kinds import Reads
from models.shape import HeadShape
from models.tokenizing import Tokenizing

pytest.importorskip("onnxruntime_extensions")

PAIRS = tuple(reversed(TEXTS))
TOKENIZERS = {
    "lowercase": bert_tokenizing(),
    "cased": bert_tokenizing(lowercase=False),
    "byte-level": roberta_tokenizing(),
}
tokenizers = pytest.mark.parametrize("name", TOKENIZERS)


def graph_of(tokenizing: Tokenizing, *, paired: bool = False, positions: int = 64) -> bytes:
    return bytes(tokens_graph(tokenizing, paired=paired, positions=positions).SerializeToString())


def trimmed(tokenizing: Tokenizing) -> Tokenizing:
    """Return the tokenizer without the pieces that the first text does without."""
    return trim_tokenizer(tokenizing, set(tokenizing.encode([TEXTS[0]], max_length=64)[0].ids)).tokenizing


@tokenizers
@pytest.mark.parametrize("paired", [False, True], ids=["one", "two"])
def test_the_graph_reads_difficult_texts_as_the_tokenizer_does(name: str, paired: bool) -> None:
    tokenizing, pairs = TOKENIZERS[name], list(PAIRS) if paired else None
    found = compare_tokens(graph_of(tokenizing, paired=paired), tokenizing, TEXTS, pairs, positions=64)
    assert (found.own, found.hard) == (len(TEXTS), len(hard_texts("x" * 5)))


@tokenizers
def test_it_reads_as_a_trimmed_tokenizer_does(name: str) -> None:
    tokenizing = trimmed(TOKENIZERS[name])
    assert tokenizing.vocab_size < TOKENIZERS[name].vocab_size
    compare_tokens(graph_of(tokenizing), tokenizing, TEXTS, None, positions=64)


@settings(max_examples=40, deadline=None)
@given(text=st.text(max_size=30))
def test_it_reads_any_text_as_the_tokenizer_does(text: str) -> None:
    tokenizing = TOKENIZERS["lowercase"]
    session = SESSIONS.setdefault("lowercase", open_session(graph_of(tokenizing), threads=1, texts=True))
    ids, _ = session.run(None, texts_to_feed(text))
    assert ids[0].tolist() == tokenizing.encode([text], max_length=64)[0].ids


SESSIONS: dict[str, Any] = {}


def test_a_word_with_an_unknown_piece_is_one_unknown_piece() -> None:
    tokenizing = TOKENIZERS["lowercase"]
    session = open_session(graph_of(tokenizing), threads=1, texts=True)
    ids, _ = session.run(None, texts_to_feed("naïve goodжs film"))  # the letter stands at the start of words only
    assert tokenizing.pieces(ids[0].tolist()) == ["[CLS]", "na", "##ive", "[UNK]", "film", "[SEP]"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_what_is_too_long_is_cut_where_the_tokenizer_cuts_it(side: str) -> None:
    tokenizing = Tokenizing(TOKENIZERS["lowercase"].json, {"truncation_side": side})
    texts = ["good " * 3, "good film " * 30, "bad " * 30, ""] * 2
    pairs = ["the film " * 30, "movie " * 3, "the film " * 30, "film " * 30, "film", "", "cafe " * 6, ""]
    compare_tokens(graph_of(tokenizing, paired=True, positions=16), tokenizing, texts, pairs, positions=16)
    compare_tokens(graph_of(tokenizing, positions=16), tokenizing, texts, None, positions=16)


def test_a_difference_is_named_with_both_readings() -> None:
    ours, theirs = TOKENIZERS["lowercase"], TOKENIZERS["cased"]
    with pytest.raises(Mismatch) as refused:
        compare_tokens(graph_of(ours), theirs, ["A Café"], None, positions=64)
    said = str(refused.value)
    assert "texts otherwise than the tokenizer" in said
    assert r"'na\xefve caf\xe9" in said
    assert "na ##ive cafe" in said


def test_what_has_no_form_in_a_graph_is_refused() -> None:
    lowercase, byte_level = TOKENIZERS["lowercase"], TOKENIZERS["byte-level"]
    (added,) = json.loads(lowercase.json)["added_tokens"][:1]
    unigram = {"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0]], "byte_fallback": False}
    for tokenizing, reason in (
        (changed(lowercase, normalizer={"type": "NFKC"}), "normalizer of the kind NFKC"),
        (changed(lowercase, pre_tokenizer={"type": "Whitespace"}), "pre-tokenizer of the kind Whitespace"),
        (changed(lowercase, added_tokens=[{**added, "single_word": True}]), "single_word"),
        (changed(lowercase, model=unigram, added_tokens=[]), "Unigram tokenizer"),
        (changed(byte_level, normalizer={"type": "NFC"}), "NFC"),
        (changed(byte_level, pre_tokenizer={"type": "Whitespace"}), "by Whitespace"),
        (changed(byte_level, added_tokens=[]), "special tokens"),
    ):
        with pytest.raises(Unsupported, match=reason):
            graph_of(tokenizing)


def test_models_and_targets_without_such_a_graph_are_refused() -> None:
    tokens = tiny_shape(head=HeadShape(("a", "b"), task="token-classification", reads=Reads.EACH))
    for shape, target, reason in (
        (image_shape(), CPU, "images"),
        (SHAPES["gpt2"], CPU, "writes"),
        (tokens, CPU, "places in its text"),
        (tiny_shape(head=None), CPU, "no answer"),
        (tiny_shape(), MOBILE, "mobile"),
    ):
        with pytest.raises(Unsupported, match=reason):
            require_text_in(shape, target)


def test_the_model_gives_label_and_probabilities_of_a_text() -> None:
    tokenizing = TOKENIZERS["lowercase"]
    network = random_network(tiny_shape(vocab_size=tokenizing.vocab_size))
    model = text_graph(network, CPU, tokenizing, paired=True, classes=True)
    session = open_session(model.SerializeToString(), threads=1, texts=True)
    assert [(port.name, port.shape) for port in session.get_inputs()] == [("text", [1]), ("text_pair", [1])]
    assert [port.name for port in session.get_outputs()] == ["logits", "label", "probabilities"]
    logits, label, shares = session.run(None, texts_to_feed("A naïve café", "bad"))
    raised = np.exp(logits[0] - logits[0].max())
    np.testing.assert_allclose(shares[0], raised / raised.sum(), atol=1e-6)
    assert label.tolist() == ["abc"[int(logits[0].argmax())]]


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(BadInput, match="UTF-8"):
        texts_to_feed("a", "\ud83d")


def test_a_missing_package_is_named_with_the_command_that_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.session.find_spec", lambda name: None)
    with pytest.raises(Unsupported, match="pip install onnxruntime-extensions"):
        open_session(b"", threads=1, texts=True)


def test_the_numbers_of_pieces_may_have_any_order() -> None:
    content = json.loads(TOKENIZERS["lowercase"].json)
    vocabulary = content["model"]["vocab"]
    last = len(vocabulary) - 1
    content["model"]["vocab"] = {
        piece: number if number < 5 else last + 5 - number for piece, number in vocabulary.items()
    }
    tokenizing = Tokenizing(json.dumps(content), {})
    compare_tokens(graph_of(tokenizing), tokenizing, TEXTS, None, positions=64)
