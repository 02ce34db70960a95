"""Writing, a word at a time: the likeliest, drawn, or the best of several texts.

What computes logits is behind `Steps`: the network here, or a runtime on a device. numpy alone, so that a device can
use it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from models.beams import Hypothesis, beam_search
from models.errors import BadInput
from models.generation_settings import Generation
from models.token_scores import Ids, Scores, allowed, drawn

Prompts = Sequence[Sequence[int]]


class Steps(Protocol):
    """One batch of texts being written, with its caches. It is used once."""

    @property
    def positions(self) -> int:
        """Return how many tokens a text may have, the prompt or start included."""

    def begin(self, prompts: Prompts) -> Scores:
        """Return logits (texts, words) of the word behind each prompt."""

    def advance(self, tokens: Ids, order: Ids) -> Scores:
        """Return logits (rows, words) of the word behind each of `tokens` (rows,), which continue the rows `order`
        (rows,) of the call before: a row may be continued several times, or not at all.
        """


def generate(steps: Steps, prompts: Prompts, settings: Generation, *, seed: int = 0) -> list[list[Hypothesis]]:
    """Return the texts for each prompt, best first: as many as `settings.beams`, or fewer where fewer ended.

    `prompts` are token numbers; behind an encoder, each is what the decoder starts with (`starts`). With sampling a
    text depends on the seed and its place in the batch, and on no other text.

    Raises:
        BadInput: a prompt is empty or leaves no room, a beam is wider than the vocabulary, a token is not in it, or no
            token ends a text.
    """
    if settings.beams == 1:
        texts: list[list[int]] = [[] for _ in prompts]
        for tokens in stream(steps, prompts, settings, seed=seed):
            for text, token in zip(texts, tokens, strict=True):
                text += [] if token is None else [token]
        return [[_hypothesis(text, settings)] for text in texts]
    rooms = _rooms(steps, prompts, settings)
    logits = steps.begin(prompts)
    check_words(logits.shape[1], settings)
    return beam_search(logits, prompts, rooms, settings, steps.advance)


def stream(steps: Steps, prompts: Prompts, settings: Generation, *, seed: int = 0) -> Iterator[list[int | None]]:
    """Yield the next token of every text as soon as it is known, the one that ends it too, and None behind the end.

    Whoever stops reading stops the writing.

    Raises:
        BadInput: as `generate` raises, or for several beams, of which none is known before the end.
    """
    if settings.beams != 1:
        raise BadInput("a beam search knows its text at the end alone", where="stream", fix="Write with one beam.")
    rooms = np.array(_rooms(steps, prompts, settings), dtype=np.int64)
    generators = [np.random.default_rng([seed, place]) for place in range(len(prompts))]
    written = [list(prompt) for prompt in prompts]
    live = np.arange(len(prompts))
    logits = steps.begin(prompts)
    check_words(logits.shape[1], settings)
    step = 0
    while len(live):
        said = [written[place] for place in live]
        scores = allowed(np.array(logits), settings, written=said, step=step, last=rooms[live] == step + 1)
        if settings.sampling is None:
            chosen = scores.argmax(axis=1)
        else:
            chosen = drawn(scores, settings.sampling, [generators[place] for place in live])
        step += 1
        tokens: list[int | None] = [None] * len(prompts)
        for place, token in zip(live.tolist(), chosen.tolist(), strict=True):
            tokens[place] = token
            written[place].append(token)
        yield tokens
        going = np.flatnonzero(~np.isin(chosen, settings.end) & (rooms[live] > step))
        if len(going):
            logits = steps.advance(chosen[going].astype(np.int64), going)
        live = live[going]


def starts(settings: Generation, texts: int) -> list[list[int]]:
    """Return what a decoder starts with for each of so many texts.

    Raises:
        BadInput: nothing says what it starts with.
    """
    if settings.start is None:
        raise BadInput("nothing says which token a text starts with", where="generation", fix="Name it: start.")
    return [[settings.start] for _ in range(texts)]


def check_sources(sources: Prompts, *, longest: int, words: int) -> None:
    """Raise BadInput for a source that an encoder, or a model that goes on writing, cannot read."""
    for number, source in enumerate(sources, start=1):
        if not len(source):
            raise BadInput(f"text {number} is empty", where="source", fix="There must be something to read.")
        if len(source) > longest:
            raise BadInput(
                f"text {number} has {len(source)} tokens, and the model reads {longest}",
                where="source",
                fix="Shorten it, or cut it into parts.",
            )
        wrong = next((token for token in source if not 0 <= token < words), None)
        if wrong is not None:
            raise BadInput(f"text {number} has the token {wrong}, and the model has {words}", where="source")


def _rooms(steps: Steps, prompts: Prompts, settings: Generation) -> list[int]:
    """Return how many tokens may be written for each prompt."""
    check_ends(settings)
    rooms = []
    for number, prompt in enumerate(prompts, start=1):
        if not len(prompt):
            raise BadInput(f"text {number} is empty", where="prompt", fix="Give a token to begin with.")
        room = min(settings.max_tokens, steps.positions - len(prompt))
        if room < 1:
            raise BadInput(
                f"text {number} has {len(prompt)} tokens, and the model has room for {steps.positions}, written ones "
                "included",
                where="prompt",
                fix="Shorten it.",
            )
        rooms.append(room)
    return rooms


def check_ends(settings: Generation) -> None:
    """Raise BadInput where nothing ends a text."""
    if not settings.end and settings.min_tokens != settings.max_tokens:
        raise BadInput(
            "no token ends a text",
            where="generation",
            fix="Name the stop tokens, or ask for a number of tokens: as few as many.",
        )


def check_words(words: int, settings: Generation) -> None:
    """Raise BadInput for settings that are not for a model of so many words."""
    if settings.beams > words:
        raise BadInput(f"{settings.beams} beams are more than the {words} words", where="generation")
    beyond = sorted({token for token in settings.tokens if token >= words and token != settings.bos})
    if beyond:
        raise BadInput(f"the model writes {words} words, and not the tokens {beyond}", where="generation")


def _hypothesis(text: list[int], settings: Generation) -> Hypothesis:
    ended = bool(text) and text[-1] in settings.end
    return Hypothesis(tuple(text[:-1] if ended else text), ended)
