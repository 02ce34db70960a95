"""Which tokens are written for which that are read: IBM's model 1 (Brown et al. 1993), fitted by EM in numpy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.content import members
from models.encoded import Encoded

ROUNDS = 5  # of EM: the order of the likeliest words hardly changes after them
MOST_PAIRS = 1 << 23  # of a token that is read and one that is written: as many take some hundred MB

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Lexicon(NamedTuple):
    """How often (pairs,) a token is expected to be `written` because of one that is `read`, both (pairs,)."""

    read: Ids
    written: Ids
    counts: Floats


class _Beside(NamedTuple):
    """What could be the reason for each written token: for one after another all tokens of its source, as the numbers
    (reasons,) of the pairs `read` and `written` (pairs,); those of a written token start at one of `starts`.
    """

    pairs: Ids
    starts: Ids
    read: Ids
    written: Ids


def fitted_lexicon(data: Encoded, *, tokens: int, seed: int, most: int = MOST_PAIRS) -> Lexicon:
    """Return how often each of `tokens` tokens is written because of each that is read, in rows with a source.

    A word that no token of the source explains is put down to an empty one, which is in every source and not in the
    result. Where there are more than `most` pairs to look at, rows are drawn from the seed.
    """
    beside = _beside(data, empty=tokens, seed=seed, most=most)
    shares: Floats = np.ones(len(beside.read))
    counts = shares
    lengths = np.diff(np.append(beside.starts, len(beside.pairs)))
    for _ in range(ROUNDS):
        each = shares[beside.pairs]
        each /= np.repeat(np.add.reduceat(each, beside.starts), lengths)
        counts = np.bincount(beside.pairs, each, minlength=len(shares)).astype(np.float64)
        shares = counts / np.bincount(beside.read, counts, minlength=tokens + 1)[beside.read]
    real = beside.read != tokens
    return Lexicon(beside.read[real], beside.written[real], counts[real])


def _beside(data: Encoded, *, empty: int, seed: int, most: int) -> _Beside:
    content, starts = data.written, data.written.starts
    rows = np.random.default_rng(seed).permutation(len(data))
    sizes = data.lengths[rows] * (content.read_lengths[rows] + 1)
    rows = rows[: max(1, int(np.searchsorted(np.cumsum(sizes), most, side="right")))]
    sources = np.insert(content.source.ids.astype(np.int64), starts[1:], empty)  # behind each one
    starts = starts + np.arange(len(starts))
    expected = data.targets[members(data.offsets, rows), 0].astype(np.int64)
    known = expected >= 0
    expected, of_row = expected[known], np.repeat(rows, data.lengths[rows])[known]
    lengths = np.diff(starts)[of_row]
    reasons = sources[members(starts, of_row)]
    found, pairs = np.unique(reasons * empty + np.repeat(expected, lengths), return_inverse=True)
    return _Beside(pairs.reshape(-1), np.cumsum(lengths) - lengths, found // empty, found % empty)
