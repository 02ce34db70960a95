"""Small tokenizers as models that write have them, learnt from a few lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

from models.new_tokenizer import BARE, ENDED, SPECIAL_TOKENS, train_byte_level_bpe
from models.tokenizing import Tokenizing

LINES = (
    "the cat sat on the mat and the dog sat beside the cat",
    "a naïve café owner baked another cake for another cat",
    "thousands of runners ran the running track",
    "other dogs barked while the brave baker slept soundly",
    "drei kleine Hunde laufen über die grüne Wiese",
)
BYTES = [f"<0x{number:02X}>" for number in range(256)]
Changes = Mapping[str, Any]


def _changed(tokenizing: Tokenizing, model: Changes, **parts: Any) -> Tokenizing:
    content = json.loads(tokenizing.json)
    content = {**content, "model": {**content["model"], **model}, **parts}
    return replace(tokenizing, json=json.dumps(content, ensure_ascii=False))


def byte_level() -> Tokenizing:
    """Return a tokenizer as BART's, which ends what is read and written."""
    return train_byte_level_bpe(LINES * 3, vocab_size=360, max_length=30, form=ENDED)


def byte_level_bare() -> Tokenizing:
    """Return a tokenizer as GPT-2's and Qwen2's, without special tokens around a text."""
    tokenizing = train_byte_level_bpe(LINES * 3, vocab_size=360, max_length=30, form=BARE)
    processor = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return _changed(tokenizing, {}, post_processor=processor)


def whole_words_first() -> Tokenizing:
    """Return a tokenizer as Llama 3's: a word that is a piece is one, whatever the merges make of it."""
    tokenizing = byte_level_bare()
    vocabulary = json.loads(tokenizing.json)["model"]["vocab"]
    # No merge makes this word of its characters.
    return _changed(tokenizing, {"ignore_merges": True, "vocab": {**vocabulary, "\u0120soundly": len(vocabulary)}})


def pieces_of_sentences(kind: str) -> Tokenizing:
    """Return a tokenizer as SentencePiece's, by Unigram (T5, mBART, PEGASUS, Marian) or by merges with bytes for what
    has no piece (Llama 2).
    """
    unigram = kind == "Unigram"
    tokenizer = Tokenizer(models.Unigram() if unigram else models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first" if not unigram else "always")
    tokenizer.decoder = decoders.Metaspace()
    special = [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    if unigram:
        trainer = trainers.UnigramTrainer(
            vocab_size=150, special_tokens=special, unk_token="<unk>", show_progress=False, max_piece_length=8
        )
    else:
        trainer = trainers.BpeTrainer(vocab_size=480, special_tokens=[*special, *BYTES], show_progress=False)
    tokenizer.train_from_iterator(LINES * 3, trainer=trainer)
    if unigram:
        tokenizer.post_processor = TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", tokenizer.token_to_id("</s>"))]
        )
    config = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
    tokenizing = Tokenizing(tokenizer.to_str(), config)
    if unigram:
        return tokenizing
    added = [token for token in json.loads(tokenizing.json)["added_tokens"] if token["content"] not in BYTES]
    steps = ["Replace", "ByteFallback", "Fuse"]
    decoder = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
            *({"type": step} for step in steps[1:]),
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }
    return _changed(tokenizing, {"byte_fallback": True, "fuse_unk": True}, added_tokens=added, decoder=decoder)


TOKENIZERS: dict[str, Callable[[], Tokenizing]] = {
    "byte-level": byte_level,
    "byte-level, bare": byte_level_bare,
    "whole words first": whole_words_first,
    "unigram": lambda: pieces_of_sentences("Unigram"),
    "merges with bytes": lambda: pieces_of_sentences("BPE"),
}
