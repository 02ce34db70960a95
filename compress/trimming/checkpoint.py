"""A checkpoint with a smaller vocabulary, fewer positions and no token types."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch

from compress.trimming.tokenizer import Trimmed, trim_tokenizer
from models.checkpoint import Checkpoint
from models.errors import BadFile, BadInput, Unsupported
from models.generation_settings import GENERATION_CONFIG, Generation
from models.kinds import Positions
from models.shape import ModelShape
from models.tokenizing import Tokenizing

POSITION, TOKEN_TYPE = "embeddings.position.weight", "embeddings.token_type.weight"
# What has a row for each word, and for each place: of what reads, of a decoder, and of what words are written by.
BY_WORD = ("embeddings.word.weight", "decoder.embeddings.word.weight", "output.projection.weight", "output.bias")
BY_PLACE = (POSITION, "decoder.embeddings.position.weight")


def trim_checkpoint(
    checkpoint: Checkpoint, keep: Collection[int], *, positions: int, fold_token_types: bool
) -> tuple[Checkpoint, Trimmed]:
    """Return the checkpoint with the pieces of `keep` and those that must stay, for texts of up to `positions` tokens.

    With `fold_token_types` the vector of the first token type is added to every position: exact but for rounding
    wherever all tokens are of that type. Positions that are computed instead of learned leave the token types as they
    are. What writes keeps the tokens that its settings name, and gives the words that are left the logits that they
    had. The second value says which rows were kept.

    Raises:
        BadInput: a quantized model, or more positions than it has.
        BadFile: a token that a text begins or ends with is not the tokenizer's.
        Unsupported: a decoder of another vocabulary, or as `trim_tokenizer` raises.
    """
    shape = checkpoint.shape
    _check(shape, positions)
    trimmed = trim_tokenizer(checkpoint.tokenizing, {*keep, *_named(checkpoint)})
    rows = torch.tensor(trimmed.rows, dtype=torch.int64)
    weights = dict(checkpoint.weights)
    weights |= {name: weights[name][rows].contiguous() for name in BY_WORD if name in weights}
    total = positions + shape.position_offset
    types = shape.type_vocab_size
    if shape.positions is Positions.LEARNED:
        weights |= {name: weights[name][:total].clone() for name in BY_PLACE if name in weights}
        if fold_token_types and types:
            weights[POSITION] += weights.pop(TOKEN_TYPE)[0]
            types = 0
    tokenizing = _limited(trimmed.tokenizing, positions)
    smaller = replace(
        _of_words(shape, len(rows)),
        max_positions=total,
        type_vocab_size=types,
        pad_token_id=trimmed.numbers.get(shape.pad_token_id, tokenizing.pad_token_id),
    )
    generation = None if checkpoint.generation is None else _renumbered(checkpoint.generation, trimmed)
    product = replace(checkpoint, shape=smaller, weights=weights, reader=tokenizing, generation=generation)
    return product, Trimmed(tokenizing, trimmed.rows)


def _check(shape: ModelShape, positions: int) -> None:
    if shape.int8:
        raise BadInput("a quantized model cannot be trimmed", where="trim", fix="Trim first, quantize after.")
    if shape.written_words != shape.vocab_size:
        raise Unsupported(
            f"the {shape.written_words} words of a decoder that reads {shape.vocab_size}",
            where="trim",
            fix="Leave trim out.",
        )
    if positions > shape.usable_positions:
        raise BadInput(
            f"{positions} positions are more than the model's {shape.usable_positions}", where="trim.positions"
        )


def _named(checkpoint: Checkpoint) -> set[int]:
    """Return the tokens that a model which writes needs whatever it reads: what its settings name, and padding."""
    if checkpoint.shape.output is None:
        return set()
    named = () if checkpoint.generation is None else replace(checkpoint.generation, banned=()).tokens
    return {*named, checkpoint.shape.pad_token_id}


def _of_words(shape: ModelShape, words: int) -> ModelShape:
    """Return the shape with so many words in each of its tables."""
    decoder = shape.decoder
    if decoder is not None and decoder.vocab_size is not None:
        decoder = replace(decoder, vocab_size=words)
    return replace(shape, vocab_size=words, decoder=decoder)


def _renumbered(settings: Generation, trimmed: Trimmed) -> Generation:
    """Return the settings with new numbers. A form is never written: it has the vector of another piece, and would be
    as likely as that.
    """
    numbers = trimmed.numbers

    def new(token: int) -> int:
        if token not in numbers:
            raise BadFile(
                f"a text begins or ends with token {token}, which the tokenizer does not have", where=GENERATION_CONFIG
            )
        return numbers[token]

    def perhaps(token: int | None) -> int | None:
        return None if token is None else new(token)

    return replace(
        settings,
        start=perhaps(settings.start),
        end=tuple(map(new, settings.end)),
        bos=None if settings.bos is None else numbers.get(settings.bos),
        forced_first=perhaps(settings.forced_first),
        forced_last=perhaps(settings.forced_last),
        banned=(*(numbers[token] for token in settings.banned if token in numbers), *trimmed.forms),
    )


def _limited(tokenizing: Tokenizing, positions: int) -> Tokenizing:
    """Return the tokenizer with no longer length written down than there are positions."""
    content: dict[str, Any] = json.loads(tokenizing.json)
    truncation = content.get("truncation")
    if truncation is not None and truncation["max_length"] > positions:
        content["truncation"] = {**truncation, "max_length": positions}
    config = {
        key: positions if key in ("model_max_length", "max_length") and _exceeds(value, positions) else value
        for key, value in tokenizing.config.items()
    }
    return Tokenizing(json.dumps(content, ensure_ascii=False, separators=(",", ":")), config)


def _exceeds(value: Any, positions: int) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > positions
