"""Writing by a graph that searches by itself: a source or a prompt in, whole texts out. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from export.caches import IDS, MASK, MOST
from export.session import open_session
from models.beams import Hypothesis
from models.errors import BadInput
from models.generation import check_sources
from models.generation_settings import Generation
from models.shape import ModelShape

Array = NDArray[Any]
FIX: Final = "Export it with its search on the host to write otherwise: export.search host."


@final
@dataclass(frozen=True, slots=True)
class GraphSearch:
    """A model that writes, whose search is in its graph; `settings` are those that it writes by."""

    shape: ModelShape
    settings: Generation
    session: onnxruntime.InferenceSession

    @staticmethod
    def open(shape: ModelShape, settings: Generation, model: Path | bytes, *, threads: int) -> GraphSearch:
        """Return the search, its graph opened; BadFile where the runtime does not read it."""
        return GraphSearch(shape, settings, open_session(model, threads=threads))

    def check(self, settings: Generation) -> None:
        """Raise BadInput for settings that ask for other texts than the graph writes: it may write less alone."""
        asked = settings.to_json()
        names = [name for name, value in self.settings.to_json().items() if asked[name] != value]
        others = [name for name in names if name not in ("max_tokens", "bos")]
        if others:
            raise BadInput(
                f"the search is in the graph, which has its own {', '.join(others)}", where="bundle", fix=FIX
            )

    def write(self, tokens: Sequence[int], *, max_tokens: int) -> list[Hypothesis]:
        """Return the texts behind a source, or a prompt, the best first.

        Raises:
            BadInput: there is nothing to read, or too much.
        """
        texts, scores = self.run(tokens, max_tokens=max_tokens)
        marks = [None] * len(texts) if scores is None else scores.tolist()
        return [self._read(text, mark) for text, mark in zip(texts.tolist(), marks, strict=True)]

    def run(self, tokens: Sequence[int], *, max_tokens: int) -> tuple[Array, Array | None]:
        """Return what the graph gives: texts (beams, time), and their scores (beams,) where there are several. Raises
        as `write`.
        """
        shape = self.shape
        check_sources([tokens], longest=shape.usable_positions, words=shape.vocab_size)
        if shape.decoder is None and len(tokens) >= shape.usable_positions:
            raise BadInput(
                f"text 1 has {len(tokens)} tokens, and the model has room for {shape.usable_positions}, written ones "
                "included",
                where="prompt",
                fix="Shorten it.",
            )
        ids = np.array([tokens], dtype=np.int64)
        known = {IDS: ids, MASK: np.ones_like(ids)}
        given = {port.name: known[port.name] for port in self.session.get_inputs()}
        texts, *scores = self.session.run(None, given | {MOST: np.array(max_tokens, dtype=np.int64)})
        return texts, scores[0] if scores else None

    def _read(self, text: list[int], score: float | None) -> Hypothesis:
        end = next((place for place, token in enumerate(text) if token in self.settings.end), len(text))
        return Hypothesis(tuple(text[:end]), end < len(text), score)
