"""What a bundle costs on the device that it lies on, of which nothing else is known: no data, and no PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from export.bundle import Bundle
from export.caches import IDS
from export.latency import Call
from export.manifest import Golden

LENGTHS: Final = (8, 16, 32, 64, 128, 256, 512)
CALLS_PER_LENGTH: Final = 5


def timed_model(bundle: Bundle) -> Path:
    """Return what `export.latency` times: the model, or the directory of what writes whole texts."""
    return bundle.model if bundle.shape.output is None else bundle.directory


def golden_calls(bundle: Bundle, golden: Golden) -> list[Call]:
    """Return a call for each golden input."""
    if bundle.shape.output is not None:
        return [_text(example.input_ids) for example in golden.examples]
    image = bundle.shape.image is not None
    return [
        Call(bundle.shape.usable_positions if image else len(example.input_ids), example.arrays())
        for example in golden.examples
    ]


def random_calls(bundle: Bundle) -> list[Call]:
    """Return calls of random tokens in lengths that the model reads, several of each: how long a text takes depends on
    its length alone. There are none for a model that writes, whose answer would be as long as it happens to be, none of
    images, which are all of one size, and none for a graph that takes texts: its golden ones are timed.
    """
    shape, port = bundle.shape, next((port for port in bundle.manifest.inputs if port.name == IDS), None)
    if shape.output is not None or port is None:
        return []
    draw, time = np.random.default_rng(0), port.shape[-1]
    lengths = [length for length in LENGTHS if length <= shape.usable_positions] or [shape.usable_positions]
    lengths = [time] if isinstance(time, int) else lengths  # a graph may be for one length alone
    return [
        _text(draw.integers(0, shape.vocab_size, length).tolist())
        for length in lengths
        for _ in range(CALLS_PER_LENGTH)
    ]


def _text(ids: list[int]) -> Call:
    return Call(len(ids), {IDS: np.array([ids], dtype=np.int64)})
