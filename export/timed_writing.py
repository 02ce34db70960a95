"""What is timed of a bundle that writes: one text at a time, as it writes by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from export.bundle import Bundle
from export.runtime_steps import RuntimeSteps
from models.generation import generate, starts

INPUT: Final = "input_ids"


def text_writer(directory: Path, *, threads: int) -> Callable[[Mapping[str, Any]], object]:
    """Return what writes behind a source, `input_ids` (1, time), from the encoder to the end of the text, with the
    beams of the bundle; nothing is drawn. Without an encoder it goes on from the first half of the tokens, and writes
    as many as the second half has, so that every model writes as much.

    Raises:
        BadFile, BadInput: as the bundle raises.
    """
    bundle = Bundle.open(directory)
    if bundle.searches:
        search = bundle.search(threads=threads)
        return lambda arrays: search.write(arrays[INPUT][0].tolist(), max_tokens=search.settings.max_tokens)
    sessions, how = bundle.writer(threads=threads), replace(bundle.generation, sampling=None)

    def behind(arrays: Mapping[str, Any]) -> object:
        return generate(RuntimeSteps(sessions, [arrays[INPUT][0].tolist()]), starts(how, 1), how)

    def on(arrays: Mapping[str, Any]) -> object:
        tokens = arrays[INPUT][0].tolist()
        prompt = tokens[: (len(tokens) + 1) // 2]
        more = max(1, len(tokens) - len(prompt))
        exactly = replace(how, min_tokens=more, max_tokens=more)
        return generate(RuntimeSteps(sessions), [prompt], exactly)

    return on if sessions.encoder is None else behind
