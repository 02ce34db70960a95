"""What is expected of rows and of words, as arrays."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from models.tokenizing import Tokenizing


class Writes(str, Enum):
    """What a task has its model write: nothing, a text behind a source that it reads, or on from what it reads."""

    NOTHING = "nothing"
    BEHIND_SOURCE = "behind_source"
    ON = "on"


class WordTargets(NamedTuple):
    """Targets of the words of each row, to be carried over to the tokens that a tokenizer makes of them.

    `words[row]` is int64 (words, 4): first and last character (exclusive), and the class of the word's first token and
    of its others; -1 where there is none.
    """

    words: list[npt.NDArray[np.int64]]


class SpanTargets(NamedTuple):
    """What is to be found in the second text of each row, to be carried over to the tokens of its windows.

    `spans[row]` is int64 (k, 2): first and last character (exclusive) of the places that are right, none where there is
    no answer; None where it is not known.
    """

    spans: list[npt.NDArray[np.int64] | None]


class TextTargets(NamedTuple):
    """The text that is to be written behind each row's text; None where it is not known."""

    texts: list[str] | None


class NextTargets(NamedTuple):
    """Every token is expected of those before it: rows are cut into blocks, each behind the other. Where it is named, a
    block is of `size` tokens of the tokenizer `by`, and counted by them, whatever reads the text: models of other
    tokens are then compared on the same blocks.
    """

    by: Tokenizing | None = None
    size: int | None = None


def labelled(targets: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return where targets are known: whole numbers from 0 on, floats that are numbers."""
    known: npt.NDArray[np.bool_] = ~np.isnan(targets) if np.issubdtype(targets.dtype, np.floating) else targets >= 0
    return known
