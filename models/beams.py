"""Beam search over a batch, with the hypotheses of `transformers` (its search since version 4.50). numpy alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from models.generation_settings import Ending, Generation
from models.token_scores import Ids, Scores, allowed, largest, log_shares

NEVER = np.float32(-1e9)  # the score of a beam that does not run yet


class Hypothesis(NamedTuple):
    """A text as tokens, without what it began with and without the token that ended it; `ended` says whether there was
    one. `score` is the sum of its tokens' log shares, divided by the length penalty; None where words were just chosen.
    """

    tokens: tuple[int, ...]
    ended: bool
    score: float | None = None


@dataclass
class _Search:
    """One text of the batch: the beams that run, best first, and the texts that ended, best first."""

    prompt: list[int]
    room: int
    scores: Scores
    running: list[list[int]]
    ended: list[Hypothesis] = field(default_factory=list)


def beam_search(
    logits: Scores,
    prompts: Sequence[Sequence[int]],
    rooms: Sequence[int],
    settings: Generation,
    advance: Callable[[Ids, Ids], Scores],
) -> list[list[Hypothesis]]:
    """Return the best texts for each prompt, best first, as many as there are beams.

    `logits` (prompts, words) are of the first word, `rooms` how many may be written for each prompt. `advance` takes a
    token for every row (rows,) and which row of the call before it continues (rows,), and returns logits (rows, words).
    """
    beams = settings.beams
    first = np.concatenate([np.zeros(1, dtype=np.float32), np.full(beams - 1, NEVER)])
    searches = [
        _Search(list(prompt), room, first, [[] for _ in range(beams)])
        for prompt, room in zip(prompts, rooms, strict=True)
    ]
    live, step = searches, 0
    logits = np.repeat(logits, beams, axis=0)
    before = np.repeat(np.arange(len(searches)), beams)  # which row of the provider's a beam continues
    while True:
        last = np.repeat([search.room == step + 1 for search in live], beams)
        texts = ((search.prompt, tokens) for search in live for tokens in search.running)
        written = [prompt + tokens for prompt, tokens in texts] if settings.looks_back else []
        shares = allowed(log_shares(logits), settings, written=written, step=step, last=last)
        shares = shares.reshape(len(live), beams, -1)
        order, kept = list[int](), list[_Search]()
        step += 1
        for place, (search, of_text) in enumerate(zip(live, shares, strict=True)):
            parents = _grown(search, of_text, settings, step=step)
            if parents is not None:
                kept.append(search)
                order += [int(before[place * beams + parent]) for parent in parents]
        live = kept
        if not live:
            return [search.ended for search in searches]
        tokens = np.array([beam[-1] for search in live for beam in search.running], dtype=np.int64)
        logits = advance(tokens, np.array(order, dtype=np.int64))
        before = np.arange(len(tokens))


def candidates(settings: Generation, words: int) -> int:
    """Return how many texts are looked at in a round: enough that as many as there are beams do not end, at most all
    that there are with one of `words` words behind each beam.
    """
    return min(max(2, 1 + len(settings.end)), words) * settings.beams


def _grown(search: _Search, shares: Scores, settings: Generation, *, step: int) -> list[int] | None:
    """Put a word behind every running beam; return which beam each of those that run now continues, None at the end."""
    beams, words = shares.shape
    totals = (shares + search.scores[:, None]).reshape(-1)
    best = largest(totals, candidates(settings, words))
    parents, tokens = (best // words).tolist(), (best % words).tolist()
    full = step == search.room
    stops = [full or token in settings.end for token in tokens]
    _end(search, settings, parents=parents, tokens=tokens, totals=totals[best], stops=stops, step=step)
    going = [place for place, stop in enumerate(stops) if not stop][:beams]
    if full or len(going) < beams:
        return None
    search.running = [[*search.running[parents[place]], tokens[place]] for place in going]
    search.scores = totals[best[going]]
    return None if _is_over(search, settings, step=step) else [parents[place] for place in going]


def _end(
    search: _Search,
    settings: Generation,
    *,
    parents: list[int],
    tokens: list[int],
    totals: Scores,
    stops: list[bool],
    step: int,
) -> None:
    """Add what ended among the best candidates, as many as there are beams, and keep the best texts."""
    length = np.float32(step**settings.length_penalty)
    for place in range(settings.beams):
        if stops[place]:
            text, token = search.running[parents[place]], tokens[place]
            ended = token in settings.end
            whole = tuple(text) if ended else (*text, token)
            search.ended.append(Hypothesis(whole, ended, float(totals[place] / length)))
    search.ended.sort(key=lambda one: -(one.score or 0.0))
    del search.ended[settings.beams :]


def _is_over(search: _Search, settings: Generation, *, step: int) -> bool:
    """Return whether nothing that runs can, or is allowed to, become one of the texts."""
    if len(search.ended) < settings.beams:
        return False
    if settings.ending is Ending.FULL:
        return True
    longest = settings.ending is Ending.NEVER and settings.length_penalty > 0
    length = np.float32((search.room if longest else step) ** settings.length_penalty)
    return float(search.scores[0] / length) <= (search.ended[-1].score or 0.0)
