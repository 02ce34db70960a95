"""What is timed of a bundle that writes: one text at a time, as it writes by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from export.bundle import Bundle
from export.graph_search import GraphSearch
from export.runtime_steps import RuntimeSteps
from models.generation import generate, starts

INPUT: Final = "input_ids"


def text_writer(directory: Path, *, threads: int) -> Callable[[Mapping[str, Any]], object]:
    """Return what writes behind a source, `input_ids` (1, time), from the encoder to the end of the text, with the
    beams of the bundle; nothing is drawn. Without an encoder it goes on from the first half of the tokens, and writes
    as many as the second half has, so that every model writes as much; a graph that searches may end before.

    Raises:
        BadFile, BadInput: as the bundle raises.
    """
    bundle = Bundle.open(directory)
    if bundle.searches:
        return partial(_found, bundle.search(threads=threads))
    sessions, how = bundle.writer(threads=threads), replace(bundle.generation, sampling=None)

    def behind(arrays: Mapping[str, Any]) -> object:
        return generate(RuntimeSteps(sessions, [arrays[INPUT][0].tolist()]), starts(how, 1), how)

    def on(arrays: Mapping[str, Any]) -> object:
        prompt, more = _halves(arrays)
        exactly = replace(how, min_tokens=more, max_tokens=more)
        return generate(RuntimeSteps(sessions), [prompt], exactly)

    return on if sessions.encoder is None else behind


def _found(search: GraphSearch, arrays: Mapping[str, Any]) -> object:
    if search.shape.decoder is None:
        prompt, more = _halves(arrays)
        return search.write(prompt, max_tokens=more)
    return search.write(arrays[INPUT][0].tolist(), max_tokens=search.settings.max_tokens)


def _halves(arrays: Mapping[str, Any]) -> tuple[list[int], int]:
    """Return the first half of the tokens, and how many the second has."""
    tokens = arrays[INPUT][0].tolist()
    prompt = tokens[: (len(tokens) + 1) // 2]
    return prompt, max(1, len(tokens) - len(prompt))
