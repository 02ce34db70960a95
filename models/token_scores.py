"""What is done to the scores of words before one is chosen. numpy alone, in the order of `transformers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from models.generation_settings import Generation, Sampling

Scores = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
BLOCK: Final = 64


def log_shares(logits: Scores) -> Scores:
    """Return the logarithm of the softmax of logits (rows, words)."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), dtype=np.float32)


def allowed(
    scores: Scores, settings: Generation, *, written: Sequence[Sequence[int]], step: int, last: npt.NDArray[np.bool_]
) -> Scores:
    """Return the scores (rows, words) with what may not be written at -inf, in place.

    `written` are the tokens of every row so far, the prompt or start included, where the settings look back; `step` is
    how many were written, `last` (rows,) whether there is room for one more alone.
    """
    if settings.repetition_penalty != 1.0:
        _penalize(scores, written, settings.repetition_penalty)
    if settings.no_repeat:
        _forbid_repeats(scores, written, settings.no_repeat)
    scores[:, list(settings.banned)] = -np.inf
    if step < settings.min_tokens:
        scores[:, list(settings.end)] = -np.inf
    if step == 0 and settings.forced_first is not None:
        _force(scores, np.ones(len(scores), dtype=np.bool_), settings.forced_first)
    if settings.forced_last is not None:
        _force(scores, last, settings.forced_last)
    return log_shares(scores) if settings.renormalize and settings.sampling is None else scores


def drawn(scores: Scores, sampling: Sampling, generators: Sequence[np.random.Generator]) -> Ids:
    """Return one word for each row (rows,), drawn by its own generator, so that a row does not depend on the others."""
    scores = scores / np.float32(sampling.temperature)
    if 0 < sampling.top_k < scores.shape[1]:
        least = np.partition(scores, -sampling.top_k, axis=1)[:, -sampling.top_k][:, None]
        scores = np.where(scores < least, np.float32(-np.inf), scores)
    order = np.argsort(scores, axis=1, kind="stable")  # the least likely first
    shares = np.exp(log_shares(np.take_along_axis(scores, order, axis=1)).astype(np.float64))
    if sampling.top_p < 1.0:
        out = np.cumsum(shares, axis=1) <= 1 - sampling.top_p
        out[:, -1] = False
        shares = np.where(out, 0.0, shares)
    upto = np.cumsum(shares, axis=1)
    places = [
        min(int(np.searchsorted(row, generator.random() * row[-1], side="right")), len(row) - 1)
        for row, generator in zip(upto, generators, strict=True)
    ]
    return order[np.arange(len(order)), places]


def largest(values: Scores, count: int) -> Ids:
    """Return where the `count` largest of values (size,) are, the largest first, and of equal ones the earlier first.

    As many blocks as are wanted have a largest value that is not below a bound, so nothing below it can be among them:
    two passes take a sixth of the time of a partition of what four beams may go on with.
    """
    whole = len(values) // BLOCK * BLOCK
    if count >= whole // BLOCK:
        among = np.arange(len(values))
    else:
        tops = values[:whole].reshape(BLOCK, -1).max(axis=0)
        among = np.flatnonzero(values >= np.partition(tops, len(tops) - count)[len(tops) - count])
    return among[np.argsort(-values[among], kind="stable")[:count]]


def _penalize(scores: Scores, written: Sequence[Sequence[int]], penalty: float) -> None:
    """Make words that were written less likely (Keskar et al. 2019, section 4.1)."""
    for row, tokens in enumerate(written):
        seen = np.unique(np.asarray(tokens, dtype=np.int64))
        of_seen = scores[row, seen]
        scores[row, seen] = np.where(of_seen < 0, of_seen * penalty, of_seen / penalty)


def _forbid_repeats(scores: Scores, written: Sequence[Sequence[int]], size: int) -> None:
    for row, tokens in enumerate(written):
        tail = list(tokens[len(tokens) - size + 1 :]) if size > 1 else []
        starts = range(len(tokens) - size + 1)
        again = [tokens[start + size - 1] for start in starts if list(tokens[start : start + size - 1]) == tail]
        scores[row, again] = -np.inf


def _force(scores: Scores, rows: npt.NDArray[np.bool_], token: int) -> None:
    scores[rows] = -np.inf
    scores[rows, token] = 0.0
