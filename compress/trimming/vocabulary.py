"""What a tokenizer's vocabulary must hold besides the wanted pieces, so that a text never needs one that is gone.

Each kind of tokenizer has its rules. They promise two things of any choice of pieces. A text all of whose pieces are
kept, unknown ones aside, is cut into the same pieces. And a text that had no unknown piece has none afterwards, because
every character stays a piece of its own wherever a piece may start with it. A character that never was one becomes one
(a `form`), with the vector of its other form or of the unknown piece.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

Model = Mapping[str, Any]
Pieces = Mapping[str, int]

BYTE = re.compile(r"<0x[0-9A-F]{2}>")
BYTES = 256
# A form must lose to every path that there was, one through an unknown character included: that one costs 10 more than
# the least likely piece (Kudo 2018's implementation).
FORM_PENALTY = 20.0


class Rules(NamedTuple):
    """How one kind of tokenizer is trimmed; `model` is the value of that name in a `tokenizer.json`.

    `pieces` gives piece -> number; `always` the pieces that stay in any case; `closed` adds what the wanted ones are
    made of; `forms` gives characters that must become pieces, with the piece whose vector they take (None: that of the
    unknown one); `rebuilt` returns the model with these pieces, numbered anew. The last argument of `always` and
    `forms` are the texts of added tokens, which are found before the model sees a text.
    """

    pieces: Callable[[Model], dict[str, int]]
    always: Callable[[Model, Pieces], set[str]]
    closed: Callable[[Model, set[str]], set[str]]
    forms: Callable[[Model, Iterable[str]], dict[str, str | None]]
    rebuilt: Callable[[Model, Mapping[str, int]], dict[str, Any]]


def _mapped(model: Model) -> dict[str, int]:
    return {str(piece): int(number) for piece, number in model["vocab"].items()}


def _unchanged(model: Model, keep: set[str]) -> set[str]:
    return keep


def _no_forms(model: Model, ordinary: Iterable[str]) -> dict[str, str | None]:
    return {}


# WordPiece: the longest piece that fits, from the left; a word in which none fits somewhere is unknown as a whole.


def _word_piece_always(model: Model, pieces: Pieces) -> set[str]:
    prefix = str(model["continuing_subword_prefix"])
    single = {piece for piece in pieces if len(piece) == 1}
    single |= {piece for piece in pieces if piece.startswith(prefix) and len(piece) == len(prefix) + 1}
    return single | {piece for piece in pieces if piece == model["unk_token"]}


def _word_piece_forms(model: Model, ordinary: Iterable[str]) -> dict[str, str | None]:
    prefix, pieces = str(model["continuing_subword_prefix"]), model["vocab"]
    first, later = set(), set()
    for piece in ordinary:
        inner = piece.removeprefix(prefix)
        # `##ing` may also stand at the start of a word that is written like that.
        first.add(piece[:1])
        later |= {*piece[1:], *(inner if inner != piece else "")}
    missing: dict[str, str | None] = {
        character: prefix + character if prefix + character in pieces else None
        for character in sorted(first - {""})
        if character not in pieces
    }
    for character in sorted(later):
        if prefix + character not in pieces:
            missing[prefix + character] = character if character in pieces else None
    return missing


def _renumbered(model: Model, numbers: Mapping[str, int]) -> dict[str, Any]:
    return {**model, "vocab": dict(numbers)}


# BPE: characters, joined by the first of the listed merges that applies, until none does.


def _bpe_always(model: Model, pieces: Pieces) -> set[str]:
    prefix, suffix = (str(model.get(key) or "") for key in ("continuing_subword_prefix", "end_of_word_suffix"))
    bare = {piece: piece.removeprefix(prefix).removesuffix(suffix) for piece in pieces}
    single = {piece for piece, inner in bare.items() if len(inner) == 1 or len(piece) == 1}
    kept = single | {piece for piece in pieces if BYTE.fullmatch(piece) or piece == model.get("unk_token")}
    if model.get("ignore_merges"):
        # A word that is a piece is taken whole: with a character that is none, nothing else can stand for it.
        kept |= {piece for piece in pieces if any(character not in pieces for character in piece)}
    return kept


def _bpe_merges(model: Model) -> list[tuple[str, str, str]]:
    """Return (left, right, result) of every merge; the file has it as two texts or as one with a space between."""
    skipped = len(str(model.get("continuing_subword_prefix") or ""))
    pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    return [(left, right, left + right[skipped:]) for left, right in pairs]


def _bpe_closed(model: Model, keep: set[str]) -> set[str]:
    parts: dict[str, set[str]] = {}
    for left, right, result in _bpe_merges(model):
        parts.setdefault(result, set()).update((left, right))
    kept, open_ = set(keep), list(keep)
    while open_:
        new = parts.get(open_.pop(), set()) - kept
        kept |= new
        open_ += new
    return kept


def _bpe_rebuilt(model: Model, numbers: Mapping[str, int]) -> dict[str, Any]:
    merges = [
        merge
        for merge, made in zip(model["merges"], _bpe_merges(model), strict=True)
        if all(piece in numbers for piece in made)
    ]
    return {**model, "vocab": dict(numbers), "merges": merges}


# Unigram: the likeliest of all cuts; a character that no piece stands for alone may be unknown.


def _unigram_pieces(model: Model) -> dict[str, int]:
    return {str(piece): number for number, (piece, _) in enumerate(model["vocab"])}


def _unigram_always(model: Model, pieces: Pieces) -> set[str]:
    kept = {piece for piece in pieces if len(piece) == 1 or BYTE.fullmatch(piece)}
    # What an unknown character costs is counted from the least likely piece.
    kept.add(min(model["vocab"], key=lambda entry: float(entry[1]))[0])
    unknown = model.get("unk_id")
    return kept if unknown is None else kept | {model["vocab"][unknown][0]}


def _unigram_forms(model: Model, ordinary: Iterable[str]) -> dict[str, str | None]:
    pieces = _unigram_pieces(model)
    if model.get("byte_fallback") and sum(BYTE.fullmatch(piece) is not None for piece in pieces) == BYTES:
        return {}
    found = {character for piece in ordinary if not BYTE.fullmatch(piece) for character in piece}
    return dict.fromkeys(sorted(found - pieces.keys()))


def _unigram_rebuilt(model: Model, numbers: Mapping[str, int]) -> dict[str, Any]:
    scores = dict(model["vocab"])
    low = min(float(score) for score in scores.values()) - FORM_PENALTY
    unknown = model.get("unk_id")
    return {
        **model,
        "vocab": [[piece, scores.get(piece, low)] for piece in sorted(numbers, key=lambda piece: numbers[piece])],
        "unk_id": None if unknown is None else numbers[model["vocab"][unknown][0]],
    }


RULES: Mapping[str, Rules] = MappingProxyType(
    {
        "WordPiece": Rules(_mapped, _word_piece_always, _unchanged, _word_piece_forms, _renumbered),
        "BPE": Rules(_mapped, _bpe_always, _bpe_closed, _no_forms, _bpe_rebuilt),
        "Unigram": Rules(_unigram_pieces, _unigram_always, _unchanged, _unigram_forms, _unigram_rebuilt),
    }
)
