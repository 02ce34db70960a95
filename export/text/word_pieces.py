"""WordPiece in a graph: a text becomes words character by character, and words become pieces.

onnxruntime-extensions has tokenizers of BERT, which keep accents, know an older Unicode, and give the pieces before an
unknown character besides the unknown one. So only the search for the longest piece is its operator's. What happens to
characters is a table, made of what the tokenizer itself does to each of them, and a word with an unknown piece is made
one unknown piece, as it should be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from export.emit import Emit
from export.text.characters import Characters, characters_of
from export.text.expressions import any_of, cut, one_of
from export.text.special_tokens import LEAVE_OUT, special_tokens
from export.values import CONTRIB, LEARNING, Value
from models.errors import Unsupported

_INT64, _STRING = 7, 8  # of onnx.TensorProto
_UNKNOWN: Final = -1
_NO_PIECE: Final = ""


def word_pieces(emit: Emit, text: Value, content: Mapping[str, Any]) -> Value:
    """Return the token numbers (tokens,) of `text` (1,), whole and without special tokens around it, as the tokenizer
    of this `tokenizer.json` has them.

    Raises:
        Unsupported: what it does to characters has no form here.
    """
    characters = characters_of(content.get("normalizer"), content.get("pre_tokenizer"))
    model, special = content["model"], special_tokens(content)
    # A special token becomes a character that no text has left by then.
    signs = dict(zip(special, sorted(characters.removed, reverse=True), strict=False))
    if len(signs) < len(special) or not characters.removed:
        raise Unsupported(
            "the tokenizer keeps every character, so that none is free to stand for a special token",
            where="tokenizer.json",
            fix=LEAVE_OUT,
        )
    numbers = {str(piece): int(number) for piece, number in model["vocab"].items()}
    numbers |= {signs[name]: number for name, number in special.items()}
    words = _words(emit, text, characters, signs, _letters(model))
    pieces, first, end = _pieces(emit, words, model, numbers)
    return _whole_words(emit, pieces, first, end, unknown=int(model["vocab"][model["unk_token"]]))


def _letters(model: Mapping[str, Any]) -> frozenset[str]:
    """Return the characters that pieces are made of."""
    return frozenset("".join(model["vocab"]))


def _words(emit: Emit, text: Value, characters: Characters, signs: Mapping[str, str], letters: frozenset[str]) -> Value:
    """Return the words (1, words) of a text."""
    single = cut(emit, text, f"{any_of(signs)}[^{one_of(characters.removed)}]", role="characters")
    apart = characters.alone | {" "}
    table = dict(signs) | {
        character: found
        for character, found in characters.changed.items()
        # A word with a letter that no piece has is unknown, whatever that letter is.
        if character in letters or set(found) <= letters or not apart.isdisjoint(found)
    }
    lines = "\n".join(f"{character}\t{found}" for character, found in table.items())
    (changed,) = emit.of_domain(CONTRIB, "StringMapping", single, roles=("normalized",), map=lines)
    nothing = emit.node("Constant", role="nothing", value_strings=[""])
    (joined,) = emit.of_domain(CONTRIB, "StringJoin", changed, nothing, emit.integers([1], "axis"), roles=("joined",))
    alone = one_of(characters.alone | set(signs.values()))
    expression = f"[{alone}]|[^{alone}{one_of(characters.blank)}]+"
    return cut(emit, joined, expression, role="words")


def _pieces(
    emit: Emit, words: Value, model: Mapping[str, Any], numbers: Mapping[str, int]
) -> tuple[Value, Value, Value]:
    """Return the numbers of pieces (pieces,), -1 of an unknown one, and of each word the first of its pieces and the
    one behind its last (words,).
    """
    texts, _, first, end = emit.of_domain(
        CONTRIB,
        "WordpieceTokenizer",
        words,
        emit.integers([], "rows"),
        roles=("pieces", "lengths", "first", "end"),
        # It gives texts of pieces, and no numbers: those of its vocabulary are not read.
        vocab=json.dumps(dict.fromkeys(numbers, 0), ensure_ascii=False, separators=(",", ":")),
        suffix_indicator=str(model["continuing_subword_prefix"]),
        unknown_token=_NO_PIECE,
        max_input_chars_per_word=int(model["max_input_chars_per_word"]),
    )
    (found,) = emit.of_domain(
        LEARNING,
        "LabelEncoder",
        emit.node("Cast", texts, role="pieces_typed", to=_STRING),  # the checker wants to know what it reads
        roles=("numbers",),
        keys_strings=list(numbers),
        values_int64s=list(numbers.values()),
        default_int64=_UNKNOWN,
    )
    return found, first, end


def _whole_words(emit: Emit, pieces: Value, first: Value, end: Value, *, unknown: int) -> Value:
    """Return the pieces with those of a word that has an unknown one put together to one."""
    one, zero = emit.integers([1], "one"), emit.integers([0], "zero")
    axis = emit.constant(np.array(0, dtype=np.int64), "axis")
    count = emit.node("Shape", pieces, role="count")
    # How many unknown pieces came before each place: between a word's ends the difference is its own.
    bad = emit.node("Cast", emit.node("Less", pieces, zero, role="unknown"), role="unknown_number", to=_INT64)
    before = emit.node("Concat", zero, emit.node("CumSum", bad, axis, role="unknown_so_far"), role="before", axis=0)
    spoilt = emit.node(
        "Greater",
        emit.node("Gather", before, end, role="before_end"),
        emit.node("Gather", before, first, role="before_first"),
        role="spoilt",
    )
    nothing = emit.node("Expand", zero, count, role="nothing_yet")
    starts = emit.node(
        "ScatterElements",
        nothing,
        first,
        emit.node("Expand", one, emit.node("Shape", first, role="words"), role="ones"),
        role="starts",
        axis=0,
    )
    word = emit.node("Sub", emit.node("CumSum", starts, axis, role="words_so_far"), one, role="word")
    lost = emit.node("Gather", spoilt, word, role="lost")
    named = emit.node("Where", lost, emit.integers([unknown], "unknown_piece"), pieces, role="named")
    stays = emit.node(
        "Or",
        emit.node("Not", lost, role="found"),
        emit.node("Greater", starts, zero, role="is_first"),
        role="stays",
    )
    return emit.node("Compress", named, stays, role="tokens", axis=0)
