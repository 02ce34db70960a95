"""Tokenizers of texts as published models have them, with small vocabularies."""

from __future__ import annotations

import json
import string
from dataclasses import replace
from typing import Any

from models.new_tokenizer import train_byte_level_bpe
from models.tokenizing import Tokenizing

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Every character of these stands alone and within words; of an accent and of Greek, only within or only alone.
ALPHABET = string.ascii_letters + string.digits + "中文日本가한\u1112\u1161\u11abéñßσςαи"
WORDS = (
    "good",
    "bad",
    "film",
    "movie",
    "##s",
    "##ing",
    "##ly",
    "na",
    "##ive",
    "cafe",
    "café",
    "the",
    "##ö",
    "ж",
    "##ed",
)
TEXTS = ("a good film, isn't it?", "the movies were bad", "naïve café", "it's  well\n made!!!", "中文 text")


def bert_tokenizing(*, lowercase: bool = True, strip_accents: bool | None = None) -> Tokenizing:
    """Return a tokenizer as BERT has it, which knows some letters in some places only."""
    pieces = [*SPECIAL, *string.punctuation, *ALPHABET, *(f"##{letter}" for letter in ALPHABET), *WORDS]
    numbers = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    around = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    around += [{"SpecialToken": {"id": "[SEP]", "type_id": 0}}]
    second = [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": numbers[name], "content": name, **token} for name in SPECIAL],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": strip_accents,
            "lowercase": lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": around,
            "pair": [*around, *second],
            "special_tokens": {
                name: {"id": name, "ids": [numbers[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": numbers,
        },
    }
    return Tokenizing(json.dumps(content, ensure_ascii=False), {"pad_token": "[PAD]", "unk_token": "[UNK]"})


def roberta_tokenizing() -> Tokenizing:
    """Return a byte-level BPE tokenizer with RoBERTa's special tokens; blanks before `<mask>` are a part of it."""
    tokenizing = train_byte_level_bpe(TEXTS * 3, vocab_size=340, max_length=64)
    content = json.loads(tokenizing.json)
    for token in content["added_tokens"]:
        token |= {"lstrip": token["content"] == "<mask>", "normalized": token["content"] != "<mask>"}
    return replace(tokenizing, json=json.dumps(content))


def changed(tokenizing: Tokenizing, **parts: Any) -> Tokenizing:
    """Return a tokenizer with other parts of its `tokenizer.json`."""
    return replace(tokenizing, json=json.dumps(json.loads(tokenizing.json) | parts))
