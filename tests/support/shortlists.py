"""Shortlists for tiny models."""

from __future__ import annotations

import numpy as np

from export.shortlist import Shortlist
from models.generation_settings import Generation
from models.shape import ModelShape


def every_word(shape: ModelShape) -> Shortlist:
    """Return one that lists every word for every source: some always, and others behind each token."""
    words, read = np.arange(shape.written_words), np.zeros(shape.vocab_size, dtype=np.int64)
    return Shortlist(words[::2], read, np.append(words[1::2], 0)[None], copies=False)


def drawn_shortlist(shape: ModelShape, settings: Generation, *, seed: int, most: int = 3) -> Shortlist:
    """Return one whose words are drawn, with those that the settings name; half of the tokens have no words."""
    assert shape.decoder is not None
    draw = np.random.default_rng(seed)
    named = [*settings.end, *(token for token in (settings.forced_first, settings.forced_last) if token is not None)]
    always = np.union1d(named, draw.choice(shape.written_words, 4, replace=False)).astype(np.int64)
    behind = draw.integers(0, shape.written_words, (shape.vocab_size // 2, most))
    behind[0] = always[0]
    rows = draw.integers(0, len(behind), shape.vocab_size) * draw.integers(0, 2, shape.vocab_size)
    return Shortlist(always, rows, behind, copies=shape.decoder.vocab_size is None)
