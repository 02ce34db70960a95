"""A checkpoint with a smaller vocabulary, fewer positions and no token types."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch

from compress.trimming.tokenizer import Trimmed, trim_tokenizer
from models.checkpoint import Checkpoint
from models.errors import BadInput, Unsupported
from models.kinds import Positions
from models.tokenizing import Tokenizing

WORD, POSITION, TOKEN_TYPE = (f"embeddings.{name}.weight" for name in ("word", "position", "token_type"))


def trim_checkpoint(
    checkpoint: Checkpoint, keep: Collection[int], *, positions: int, fold_token_types: bool
) -> tuple[Checkpoint, Trimmed]:
    """Return the checkpoint with the pieces of `keep` and those that must stay, for texts of up to `positions` tokens.

    With `fold_token_types` the vector of the first token type is added to every position: exact but for rounding
    wherever all tokens are of that type. Positions that are computed instead of learned leave the token types as they
    are. The second value says which rows were kept.

    Raises:
        BadInput: a quantized model, or more positions than it has.
        Unsupported: as `trim_tokenizer` raises.
    """
    shape = checkpoint.shape
    if shape.int8:
        raise BadInput("a quantized model cannot be trimmed", where="trim", fix="Trim first, quantize after.")
    if shape.output is not None:
        raise Unsupported("the words of a model that writes", where="trim", fix="Leave trim out.")
    if positions > shape.usable_positions:
        raise BadInput(
            f"{positions} positions are more than the model's {shape.usable_positions}", where="trim.positions"
        )
    trimmed = trim_tokenizer(checkpoint.tokenizing, keep)
    weights = dict(checkpoint.weights)
    rows = torch.tensor(trimmed.rows, dtype=torch.int64)
    weights[WORD] = weights[WORD][rows].contiguous()
    total = positions + shape.position_offset
    types = shape.type_vocab_size
    if shape.positions is Positions.LEARNED:
        weights[POSITION] = weights[POSITION][:total].clone()
        if fold_token_types and types:
            weights[POSITION] += weights.pop(TOKEN_TYPE)[0]
            types = 0
    tokenizing = _limited(trimmed.tokenizing, positions)
    smaller = replace(
        shape,
        vocab_size=len(trimmed.rows),
        max_positions=total,
        type_vocab_size=types,
        pad_token_id=trimmed.numbers.get(shape.pad_token_id, tokenizing.pad_token_id),
    )
    return replace(checkpoint, shape=smaller, weights=weights, reader=tokenizing), Trimmed(tokenizing, trimmed.rows)


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
