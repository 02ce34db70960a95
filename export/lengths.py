"""A model whose texts have fixed lengths: opened once for each, and a text filled up to the smallest that holds it.

Execution providers of phones want every axis fixed. The graph leaves the length free, so that its weights are stored
once, and the runtime fixes it when a session is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

import numpy as np
import onnxruntime

from export.session import Arrays, Floats, open_session, run

BATCH: Final = "batch"
TIME: Final = "time"


def sizes_at(length: int) -> dict[str, int]:
    """Return the sizes of the free axes for one text of this length."""
    return {BATCH: 1, TIME: length}


@final
class Buckets:
    """The sessions of one model for texts of these lengths, each opened when it is first needed."""

    def __init__(self, model: Path | bytes, lengths: Sequence[int], *, threads: int = 1) -> None:
        self.lengths = sorted(lengths)
        self._model = model
        self._threads = threads
        self._open: dict[int | None, onnxruntime.InferenceSession] = {}

    def session(self, length: int | None) -> onnxruntime.InferenceSession:
        """Return the session for texts of a length; None leaves it free.

        Raises:
            BadFile: the runtime does not read the model.
        """
        if length not in self._open:
            sizes = {} if length is None else sizes_at(length)
            self._open[length] = open_session(self._model, threads=self._threads, sizes=sizes)
        return self._open[length]

    def run(self, arrays: Arrays) -> Floats:
        """Return what the model gives for one text, by the smallest length that holds it, or by the free one; without
        lengths, for an image too.
        """
        if not self.lengths:
            return self.run_at(None, arrays)
        tokens = arrays["input_ids"].shape[1]
        return self.run_at(next((length for length in self.lengths if length >= tokens), None), arrays)

    def run_at(self, length: int | None, arrays: Arrays) -> Floats:
        """Return what the model gives for one text that is filled up to this length."""
        if length is None:
            return run(self.session(None), arrays)
        given = run(self.session(length), filled(arrays, length))
        return given if given.ndim == 2 else given[:, : arrays["input_ids"].shape[1]]


def filled(arrays: Arrays, length: int) -> Arrays:
    """Return the inputs (batch, time) of texts, with padding that the mask hides up to `length`."""
    masked = {"attention_mask": np.ones_like(arrays["input_ids"]), **arrays}
    return {name: np.pad(value, ((0, 0), (0, length - value.shape[1]))) for name, value in masked.items()}
