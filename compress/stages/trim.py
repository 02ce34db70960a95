"""Drop the pieces of the vocabulary that the training texts do without, unused positions and token types."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from compress.lessons import lessons_of, schedule_of, taught, weights_of
from compress.settings import TrimSettings
from compress.stage import Context, Output, Stage
from compress.trimming.checkpoint import trim_checkpoint
from compress.trimming.tokenizer import Trimmed, pieces_to_keep
from models.checkpoint import Checkpoint
from models.encoded import Encoded
from models.targets import Writes
from teacher_student.distillation import distill
from teacher_student.student import with_dropout

ROOM = 2  # texts may get this much longer than those of the training data
STEP = 64
MILDER = 1.5
FIRST = 4096  # pieces of general use that a milder attempt keeps at least, when all that were seen are kept


def run(parent: Checkpoint, settings: TrimSettings, context: Context) -> Output[Checkpoint]:
    """Return the checkpoint with the pieces that the training texts hold, and what characters and merges need.

    Only training texts choose, read and written ones: the validation texts stay a fair sample of what comes later. What
    is trained afterwards learns from the original teacher, which reads the same texts with its own tokenizer.

    Raises:
        BadInput: no training texts, a quantized model, or more positions than it has.
        Unsupported: a tokenizer that cannot be trimmed.
    """
    counts = np.bincount(_seen(parent, context), minlength=parent.tokenizing.highest_id + 1).astype(np.int64)
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
        fold_token_types=settings.fold_token_types and bool(parent.shape.type_vocab_size) and single_texts(context),
    )
    kept = np.isin(np.arange(len(counts)), list(keep))
    details: dict[str, Any] = {
        "pieces": {"before": parent.tokenizing.vocab_size, "after": len(told.rows)},
        "positions": {"before": parent.shape.usable_positions, "after": trimmed.shape.usable_positions},
        "token_types": {"before": parent.shape.type_vocab_size, "after": trimmed.shape.type_vocab_size},
        "covered": float(counts[kept].sum() / max(1, counts.sum())),
    }
    if "validation" in context.examples:
        details["validation"] = changes(
            context.validation, context.encoded("validation", trimmed), told, context.task.writes
        )
    if settings.recovery.epochs > 0:
        trimmed, history = distill(
            context.teacher,
            with_dropout(trimmed, settings.recovery.dropout),
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


def _seen(parent: Checkpoint, context: Context) -> npt.NDArray[Any]:
    """Return the tokens of the training texts, and of those that the teacher wrote for them where they were learnt."""
    seen = tokens_of(context.train, context.task.writes)
    told = taught(context, parent)
    return seen if told is None else np.concatenate([seen, told.targets[:, 0]])


def tokens_of(data: Encoded, writes: Writes) -> npt.NDArray[Any]:
    """Return the tokens of all texts, those that are expected to be written among them."""
    if writes is Writes.NOTHING:
        return data.tokens.ids
    expected = data.targets[:, 0]
    if writes is Writes.BEHIND_SOURCE:
        return np.concatenate([data.written.source.ids, expected[expected >= 0]])
    # Each token that is expected is read in its turn, but for the last of a row.
    return np.concatenate([data.tokens.ids, expected[data.offsets[1:] - 1]])


def needed_positions(parent: Checkpoint, train: Encoded) -> int:
    """Return twice the longest training text, rounded up to a multiple of 64, or all positions where it is more, or
    where the model writes: how long a text becomes is not said by those that were there.
    """
    if parent.shape.output is not None:
        return parent.shape.usable_positions
    longest = ROOM * int(train.lengths.max(initial=1))
    return min(-(-longest // STEP) * STEP, parent.shape.usable_positions)


def single_texts(context: Context) -> bool:
    """Return whether no example has a token of a second type."""
    return not any((data.tokens.second >= 0).any() for data in context.examples.values())


def changes(before: Encoded, after: Encoded, trimmed: Trimmed, writes: Writes) -> dict[str, Any]:
    """Return how many texts are cut otherwise than before, how long texts are, and how many lose their end."""
    highest = int(max(trimmed.numbers))
    table = np.full(highest + 1, -1, dtype=np.int64)
    table[list(trimmed.numbers)] = list(trimmed.numbers.values())
    whole, found = (_texts(data, writes) for data in (before, after))
    expected = [np.where(text <= highest, table[text.clip(max=highest)], -1) for text in whole]
    changed = sum(not np.array_equal(one, other) for one, other in zip(expected, found, strict=True))
    return {
        "texts": len(whole),
        "changed": int(changed),
        "tokens_per_text": {
            name: float(np.mean([len(text) for text in texts])) if texts else 0.0
            for name, texts in (("before", whole), ("after", found))
        },
        "truncated": {"before": before.truncated, "after": after.truncated},
    }


def _texts(data: Encoded, writes: Writes) -> list[npt.NDArray[np.int64]]:
    """Return the tokens of every example, of all its rows, and behind those of a source what is written."""
    if writes is Writes.BEHIND_SOURCE:
        read, starts = data.written.source.ids, data.written.starts
        pairs = zip(np.split(read, starts[1:-1]), np.split(data.targets[:, 0], data.offsets[1:-1]), strict=True)
        return [np.concatenate(pair).astype(np.int64) for pair in pairs]
    rows = data.offsets[:-1]
    firsts = rows[np.flatnonzero(np.diff(data.examples, prepend=-1))] if len(data.examples) else rows
    return [text.astype(np.int64) for text in np.split(data.tokens.ids, firsts[1:])]


TRIM: Stage[TrimSettings, Checkpoint] = Stage("trim", TrimSettings, run, milder)
