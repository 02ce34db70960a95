"""What stands around the tokens of a text, and how long texts are cut: special tokens, types and positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np

from export.emit import Emit
from export.text.special_tokens import LEAVE_OUT
from export.values import Value
from models.errors import Unsupported
from models.tokenizing import Encoding, Tokenizing

_SAMPLE: Final = "a"
_LONG: Final = 64  # more tokens than there are special ones around two texts of a letter


@final
@dataclass(frozen=True, slots=True)
class Frame:
    """The special tokens before, between and behind the texts of a row, the token types of these and of each text, and
    how many tokens the texts may have together. From the left or the right, what is too long is cut.
    """

    special: tuple[tuple[int, ...], ...]
    special_types: tuple[tuple[int, ...], ...]
    types: tuple[int, ...]
    room: int
    left: bool

    @staticmethod
    def of(tokenizing: Tokenizing, *, paired: bool, positions: int) -> Frame:
        """Return what a tokenizer puts around a text, or two, that must fit into so many positions.

        Raises:
            Unsupported: its two texts cannot be told apart.
        """
        pairs = [_SAMPLE] if paired else None
        (row,) = tokenizing.encode([_SAMPLE], pairs, max_length=max(_LONG, positions), spans=True)
        stretches = _stretches(row)
        if len(stretches) != (5 if paired else 3):
            raise Unsupported("no special token stands between two texts", where="tokenizer.json", fix=LEAVE_OUT)
        parts, kinds = stretches[1::2], [row.token_type_ids[part] for part in stretches]
        special = [tuple(row.ids[part]) for part in stretches[::2]]
        return Frame(
            special=tuple(special),
            special_types=tuple(tuple(kind) for kind in kinds[::2]),
            types=tuple(row.token_type_ids[part.start] for part in parts),
            room=positions - sum(map(len, special)),
            left=tokenizing.config.get("truncation_side") == "left",
        )

    def around(self, emit: Emit, texts: list[Value]) -> tuple[Value, Value]:
        """Return the token numbers and their types (1, time) of a row, for the tokens (tokens,) of its texts."""
        kept = [
            _cut(emit, text, keep, left=self.left) for text, keep in zip(texts, self._keep(emit, texts), strict=True)
        ]
        ids, types = ([emit.integers(each[0], "special")] for each in (self.special, self.special_types))
        for number, text in enumerate(kept):
            kind = emit.integers([self.types[number]], "type")
            ids += [text, emit.integers(self.special[number + 1], "special")]
            types += [
                emit.node("Expand", kind, emit.node("Shape", text, role="length"), role="types_of_text"),
                emit.integers(self.special_types[number + 1], "special_types"),
            ]
        first = emit.integers([0], "row")
        return (
            emit.node("Unsqueeze", emit.node("Concat", *ids, role="ids", axis=0), first, role="input_ids"),
            emit.node("Unsqueeze", emit.node("Concat", *types, role="types", axis=0), first, role="token_type_ids"),
        )

    def _keep(self, emit: Emit, texts: list[Value]) -> list[Value]:
        """Return how many tokens (1,) each text may keep: the shorter of two may have half, the other the rest."""
        room = emit.integers([self.room], "room")
        if len(texts) == 1:
            return [room]
        first, second = (emit.node("Shape", text, role="length") for text in texts)
        half = emit.integers([self.room // 2], "half")
        shorter = emit.node("Min", first, second, half, role="shorter_keeps")
        longer = emit.node("Sub", room, shorter, role="longer_keeps")
        order = emit.node("LessOrEqual", first, second, role="first_is_shorter")
        return [
            emit.node("Where", order, shorter, longer, role="first_keeps"),
            emit.node("Where", order, longer, shorter, role="second_keeps"),
        ]


def _cut(emit: Emit, text: Value, keep: Value, *, left: bool) -> Value:
    zero = emit.integers([0], "start")
    if not left:
        return emit.node("Slice", text, zero, keep, role="kept")
    length = emit.node("Shape", text, role="length")
    start = emit.node("Max", emit.node("Sub", length, keep, role="too_many"), zero, role="first_kept")
    return emit.node("Slice", text, start, length, role="kept")


def _stretches(row: Encoding) -> list[slice]:
    """Return the places of special tokens and of texts in turn, beginning and ending with special ones."""
    of_text = np.array([-1, *row.words, -1]) >= 0
    edges = [int(place) for place in np.flatnonzero(of_text[1:] != of_text[:-1])]
    ends = [0, *edges, len(row.ids)]
    return [slice(first, end) for first, end in zip(ends[:-1], ends[1:], strict=True)]
