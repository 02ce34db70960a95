"""What every model is given: the same texts, as the numbers of its own tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Final, NamedTuple, final

import numpy as np

from against_peers.measure import Call, Workload
from models.data import Table
from models.tokenizing import TOKENIZER_FILE, Encoding, Tokenizing

LENGTHS, END_TO_END = "lengths", "end to end"
MOST_CALLS, FEWEST_CALLS, TOKENS_PER_PASS = 30, 4, 1024
TEXTS: Final = 100
TOKENISED: Final = 40  # of them, end to end: their calls are a second time those of the real lengths


class Shape(NamedTuple):
    """Rows and tokens of one call."""

    batch: int
    time: int

    @staticmethod
    def parse(text: str) -> Shape:
        """Return the shape that is written as 16x64; a ValueError where it is not."""
        batch, time = (int(part) for part in text.split("x"))
        if batch < 1 or time < 1:
            raise ValueError(text)
        return Shape(batch, time)

    def __str__(self) -> str:
        return f"{self.batch}x{self.time}"


@final
@dataclass(frozen=True, slots=True)
class Reader:
    """One model's way from text to numbers. `longest` is the most tokens that it takes."""

    tokenizing: Tokenizing
    folder: Path
    longest: int

    def read(self, table: Table, rows: Sequence[int]) -> list[Encoding]:
        """Return the texts of these rows as numbers."""
        texts = [table.texts[row] for row in rows]
        pairs = None if table.pairs is None else [table.pairs[row] for row in rows]
        return self.tokenizing.encode(texts, pairs, max_length=self.longest)


def spread_rows(lengths: Sequence[int], count: int) -> list[int]:
    """Return `count` rows whose lengths are distributed as all are: evenly spaced ranks, in an order without trend."""
    order = np.argsort(np.asarray(lengths), kind="stable")
    count = min(count, len(order))
    ranks = ((np.arange(count) + 0.5) * len(order) / count).astype(np.int64)
    return [int(row) for row in np.random.default_rng(0).permutation(order[ranks])]


def single(encoding: Encoding) -> Call:
    """Return the call of one text alone."""
    return {"ids": [encoding.ids], "kinds": [encoding.token_type_ids]}


def workloads(reader: Reader, table: Table, rows: Sequence[int], shapes: Sequence[Shape]) -> dict[str, Workload]:
    """Return what a model is timed on: the shapes that it takes, the rows of the table alone, and their texts."""
    encodings = reader.read(table, rows)
    tokens = cycle([token for encoding in encodings for token in encoding.ids])
    found = {str(shape): Workload(_calls(tokens, shape)) for shape in shapes if shape.time <= reader.longest}
    singles = [single(encoding) for encoding in encodings]
    whole = [row for row, encoding in zip(rows, encodings, strict=True) if not encoding.truncated][:TOKENISED]
    texts = [[table.texts[row], *([] if table.pairs is None else [table.pairs[row]])] for row in whole]
    kept = [call for call, encoding in zip(singles, encodings, strict=True) if not encoding.truncated][:TOKENISED]
    tokenizer = str((reader.folder / TOKENIZER_FILE).resolve())
    return found | {LENGTHS: Workload(singles), END_TO_END: Workload(kept, texts, tokenizer)}


def _calls(tokens: Iterator[int], shape: Shape) -> list[Call]:
    """Return the calls of a pass: more of the short ones, so that every pass takes long enough to be timed."""
    count = max(FEWEST_CALLS, min(MOST_CALLS, TOKENS_PER_PASS // (shape.batch * shape.time)))
    kinds = [[0] * shape.time for _ in range(shape.batch)]
    return [
        {"ids": [list(islice(tokens, shape.time)) for _ in range(shape.batch)], "kinds": kinds} for _ in range(count)
    ]
