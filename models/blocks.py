"""Running text as blocks of tokens, each expected behind those before it: a tokenizer's own, or those of another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]


class Row(NamedTuple):
    """Tokens `first` to `last` (exclusive) of a document, each read for the one behind it. They are of the `block` of
    that number, which has so many tokens as they are `counted`; 0 where another row of the block says it.
    """

    block: int
    first: int
    last: int
    counted: int


def blocks_in(tokens: int, size: int) -> int:
    """Return how many blocks of at most `size` tokens a document has: its first token is expected behind none."""
    return -(-max(0, tokens - 1) // size)


def rows_of(ends: Places, others: Places, *, size: int, longest: int) -> Iterator[Row]:
    """Yield the rows of a document, each of at most `longest` tokens, in the blocks of `size` that it has where another
    tokenizer cuts it.

    `ends` (tokens,) and `others` (tokens of the other one,) say in rising order where each token ends. A token is of
    the block of that other one which ends with it, or which it is a part of.
    """
    if min(len(ends), len(others)) < 2:
        return
    # Several tokens may end with one character, the bytes of it: the last of them stands for it.
    within, upto = np.searchsorted(others, ends[1:]), np.searchsorted(others, ends[1:], side="right") - 1
    blocks = (np.maximum(within, upto).clip(1, len(others) - 1) - 1) // size
    borders = [*np.flatnonzero(np.diff(blocks, prepend=-1)).tolist(), len(blocks)]
    for start, stop in zip(borders, borders[1:], strict=False):
        block = int(blocks[start])
        counted = min(size, len(others) - 1 - block * size)
        for first in range(start, stop, longest):
            yield Row(block, first, min(first + longest, stop), counted if first == start else 0)
