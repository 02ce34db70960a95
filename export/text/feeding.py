"""Texts as a graph that takes texts is called with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from export.text.ports import PAIR, TEXT
from models.errors import BadInput

if TYPE_CHECKING:  # they load torch, which a device does not have, and a runtime, which a report does not need
    from export.session import Arrays
    from models.encoded import Encoded
    from models.tokenizing import Tokenizing


def texts_to_feed(text: str, pair: str | None = None) -> Arrays:
    """Return a text, or two, as a graph that takes texts is called with them.

    Raises:
        BadInput: a text holds half a surrogate pair.
    """
    given = {TEXT: text} | ({} if pair is None else {PAIR: pair})
    for name, one in given.items():
        if not one.isascii() and any("\ud800" <= character <= "\udfff" for character in one):
            raise BadInput(
                "it is not a text that can be written as UTF-8",
                where=name,
                fix="Remove the broken characters (half a surrogate pair).",
            )
    return {name: np.array([one], dtype=object) for name, one in given.items()}


def row_texts(data: Encoded, row: int) -> Arrays:
    """Return the text of a row, or both of its texts, as a graph that takes texts is called with them.

    Raises:
        BadInput: the rows were made of no texts, or an example has several.
    """
    if data.table is None or len(data.table) != len(data):
        raise BadInput("the rows are not texts, one for each", where="data")
    pairs = data.table.pairs
    return texts_to_feed(data.table.texts[row], None if pairs is None else pairs[row])


def with_tokens(texts: Arrays, tokenizing: Tokenizing, positions: int) -> Arrays:
    """Return the texts of a row and, as a graph that takes tokens is called with them, their tokens."""
    first, *pair = ([str(texts[name][0])] for name in (TEXT, PAIR) if name in texts)
    (read,) = tokenizing.encode(first, *pair, max_length=positions)
    return {**read.inputs, **texts}
