"""Drop the pieces of the vocabulary that the training texts do without, unused positions and token types."""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.lessons import lessons_of, schedule_of, weights_of
from compress.settings import TrimSettings
from compress.stage import Context, Output, Stage
from compress.trimming.checkpoint import trim_checkpoint
from compress.trimming.tokenizer import Trimmed, pieces_to_keep
from models.checkpoint import Checkpoint
from models.encoded import Encoded
from teacher_student.distillation import distill

ROOM = 2  # texts may get this much longer than those of the training data
STEP = 64
MILDER = 1.5
FIRST = 4096  # pieces of general use that a milder attempt keeps at least, when all that were seen are kept


def run(parent: Checkpoint, settings: TrimSettings, context: Context) -> Output[Checkpoint]:
    """Return the checkpoint with the pieces that the training texts hold, and what characters and merges need.

    Only training texts choose: the validation texts stay a fair sample of what comes later. What is trained afterwards
    learns from the original teacher, which reads the same texts with its own tokenizer.

    Raises:
        BadInput: no training texts, a quantized model, or more positions than it has.
        Unsupported: a tokenizer that cannot be trimmed.
    """
    counts = np.bincount(context.train.tokens.ids, minlength=parent.tokenizing.highest_id + 1).astype(np.int64)
    keep = pieces_to_keep(
        parent.tokenizing,
        counts,
        min_count=settings.min_count,
        max_pieces=settings.max_pieces,
        first=settings.first,
    )
    trimmed, told = trim_checkpoint(
        parent,
        keep,
        positions=settings.positions or needed_positions(parent, context.train),
        fold_token_types=settings.fold_token_types and single_texts(context),
    )
    kept = np.isin(np.arange(len(counts)), list(keep))
    details: dict[str, Any] = {
        "pieces": {"before": parent.tokenizing.vocab_size, "after": len(told.rows)},
        "positions": {"before": parent.shape.usable_positions, "after": trimmed.shape.usable_positions},
        "token_types": {"before": parent.shape.type_vocab_size, "after": trimmed.shape.type_vocab_size},
        "covered": float(counts[kept].sum() / max(1, counts.sum())),
    }
    if "validation" in context.examples:
        details["validation"] = changes(context.validation, context.encoded("validation", trimmed), told)
    if settings.recovery.epochs > 0:
        trimmed, history = distill(
            context.teacher,
            trimmed,
            lessons=lessons_of(
                context, context.scratch / "recovery", student=trimmed, settings=settings.recovery, select=True
            ),
            weights=weights_of(settings.recovery.losses),
            schedule=schedule_of(settings.recovery),
        )
        details["training"] = history.to_json()
    return Output(trimmed, details)


def milder(settings: TrimSettings, details: dict[str, Any]) -> TrimSettings | None:
    """Return settings that keep more pieces: half the count and half as many again of those that were seen, and then
    of those of general use, while there are any left out.
    """
    whole, most = int(details["pieces"]["before"]), settings.max_pieces
    if settings.min_count > 1 or most is not None:
        more = None if most is None or most * MILDER >= whole else int(most * MILDER) + 1
        return settings.model_copy(update={"min_count": max(1, settings.min_count // 2), "max_pieces": more})
    if settings.first >= whole:
        return None
    return settings.model_copy(update={"first": min(whole, max(FIRST, int(settings.first * MILDER)))})


def needed_positions(parent: Checkpoint, train: Encoded) -> int:
    """Return twice the longest training text, rounded up to a multiple of 64, or all positions where it is more."""
    longest = ROOM * int(train.lengths.max(initial=1))
    return min(-(-longest // STEP) * STEP, parent.shape.usable_positions)


def single_texts(context: Context) -> bool:
    """Return whether no example has a token of a second type."""
    return not any((data.tokens.second >= 0).any() for data in context.examples.values())


def changes(before: Encoded, after: Encoded, trimmed: Trimmed) -> dict[str, Any]:
    """Return how many texts are cut otherwise than before, how long texts are, and how many lose their end."""
    table = np.full(int(before.tokens.ids.max(initial=0)) + 1, -1, dtype=np.int64)
    for old, new in trimmed.numbers.items():
        if old < len(table):
            table[old] = new
    expected = np.split(table[before.tokens.ids], before.offsets[1:-1])
    found = np.split(np.asarray(after.tokens.ids, dtype=np.int64), after.offsets[1:-1])
    changed = sum(not np.array_equal(one, other) for one, other in zip(expected, found, strict=True))
    return {
        "texts": len(before),
        "changed": int(changed),
        "tokens_per_text": {
            "before": float(before.lengths.mean()) if len(before) else 0.0,
            "after": float(after.lengths.mean()) if len(after) else 0.0,
        },
        "truncated": {"before": before.truncated, "after": after.truncated},
    }


TRIM: Stage[TrimSettings, Checkpoint] = Stage("trim", TrimSettings, run, milder)
