"""Small tokenizers of every kind that can be trimmed, made of drawn pieces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from support.examples import WORDS, tiny_checkpoint

from models.checkpoint import Checkpoint
from models.tokenizing import Tokenizing

KINDS = ("WordPiece", "BPE", "Unigram")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
ALPHABET = "abcd"
STRANGE = "#é"  # the mark of a piece within a word, and a character of two bytes


def word_piece_checkpoint(**changes: Any) -> Checkpoint:
    """Return the tiny checkpoint with a tokenizer of the words w2 to w49 that has characters to fall back to, and
    special tokens around a text.
    """
    words = [f"w{number}" for number in range(2, WORDS)]
    characters = [f"{mark}{letter}" for mark in ("", "##") for letter in "w0123456789"]
    tokenizing = tokenizing_of("WordPiece", dict.fromkeys([*words, *characters], 0.0))
    checkpoint = tiny_checkpoint(vocab_size=tokenizing.vocab_size, **changes)
    return replace(checkpoint, reader=with_post_processor(tokenizing, "template"))


@st.composite
def tokenizings(draw: st.DrawFn) -> Tokenizing:
    """Draw a tokenizer whose pieces are made of few letters, so that texts are often cut in several ways."""
    kind = draw(st.sampled_from(KINDS))
    words = st.text(alphabet=ALPHABET + (STRANGE if kind != "BPE" else ""), min_size=1, max_size=4)
    within = words.map(lambda word: f"##{word}") if kind == "WordPiece" else words
    single = st.sampled_from(ALPHABET)
    scores = st.floats(-12.0, 0.0, width=32)
    found = draw(st.dictionaries(st.one_of(words, within, single), scores, min_size=1, max_size=16))
    return tokenizing_of(kind, found, special_last=draw(st.booleans()), settings=_settings(draw, kind))


def _settings(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    if kind != "BPE":
        return {}
    return {"ignore_merges": draw(st.booleans()), "fuse_unk": draw(st.booleans())}


def tokenizing_of(
    kind: str, found: Mapping[str, float], *, special_last: bool = False, settings: Mapping[str, Any] | None = None
) -> Tokenizing:
    """Return a tokenizer of these pieces (with their scores, for Unigram) and four special ones; words are split at
    spaces. A piece of BPE is merged out of its first letters and its last one, where both are pieces.
    """
    pieces = [piece for piece in found if piece not in SPECIAL]
    names = [*pieces, *SPECIAL] if special_last else [*SPECIAL, *pieces]
    numbers = {piece: number for number, piece in enumerate(names)}
    models: dict[str, dict[str, Any]] = {
        "WordPiece": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": numbers,
        },
        "BPE": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "[UNK]",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": numbers,
            "merges": _merges(pieces),
        },
        "Unigram": {
            "type": "Unigram",
            "unk_id": numbers["[UNK]"],
            "vocab": [[name, found.get(name, 0.0)] for name in names],
            "byte_fallback": False,
        },
    }
    tokens = [
        {
            "id": numbers[name],
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for name in SPECIAL
    ]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(tokens, key=lambda token: int(token["id"])),
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": models[kind] | dict(settings or {}),
    }
    return Tokenizing(json.dumps(content, ensure_ascii=False), {"pad_token": "[PAD]", "unk_token": "[UNK]"})


def _merges(pieces: list[str]) -> list[list[str]]:
    """Return every way to make a piece of two others, in the order of the pieces."""
    known = set(pieces)
    return [
        [piece[:place], piece[place:]]
        for piece in pieces
        for place in range(1, len(piece))
        if piece[:place] in known and piece[place:] in known
    ]


def with_post_processor(tokenizing: Tokenizing, kind: str) -> Tokenizing:
    """Return the tokenizer with special tokens around a text, and with its numbers in every place that has some."""
    content = json.loads(tokenizing.json)
    numbers = {token["content"]: token["id"] for token in content["added_tokens"]}
    pair = {"sep": ["[SEP]", numbers["[SEP]"]], "cls": ["[CLS]", numbers["[CLS]"]]}
    around = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    around += [{"SpecialToken": {"id": "[SEP]", "type_id": 0}}]
    second = [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}]
    special = {name: {"id": name, "ids": [numbers[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")}
    processors: dict[str, dict[str, Any]] = {
        "template": {
            "type": "TemplateProcessing",
            "single": around,
            "pair": [*around, *second],
            "special_tokens": special,
        },
        "bert": {"type": "BertProcessing", **pair},
        "roberta": {"type": "RobertaProcessing", **pair, "trim_offsets": True, "add_prefix_space": False},
    }
    processors["sequence"] = {
        "type": "Sequence",
        "processors": [
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
            processors["bert"],
        ],
    }
    content["post_processor"] = processors[kind]
    content["padding"] = {
        "strategy": "BatchLongest",
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": numbers["[PAD]"],
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    decoder = {str(number): {"content": name, "special": True} for name, number in numbers.items()}
    config = {**tokenizing.config, "pad_token_id": numbers["[PAD]"], "added_tokens_decoder": decoder}
    return replace(tokenizing, json=json.dumps(content), config=config)
