"""Searches that stand in a graph, run, and compared with others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from export.search_in_graph import lower_search
from export.session import open_session
from export.shortlist import Shortlist
from export.target import Target
from models.beams import Hypothesis
from models.generation_settings import Generation
from models.network import Network

TEXTS = ([5, 9, 14, 3], [30], [7, 7, 12, 45, 8, 21])


def searched(
    network: Network, how: Generation, target: Target, shortlist: Shortlist | None = None, **given: int
) -> list[list[Hypothesis]]:
    """Return what the graph writes for every text."""
    session = open_session(lower_search(network, how, target, shortlist).SerializeToString(), threads=1)
    ports = {port.name for port in session.get_inputs()}
    found = []
    for text in TEXTS:
        ids = np.array([text])
        known: dict[str, Any] = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        arrays = {name: value for name, value in known.items() if name in ports}
        arrays |= {name: np.array(value) for name, value in given.items()}
        tokens, *scores = session.run(None, arrays)
        marks = scores[0].tolist() if scores else [None]
        found.append([_read(line, how, mark) for line, mark in zip(tokens.tolist(), marks, strict=True)])
    return found


def assert_same(found: Sequence[Sequence[Hypothesis]], wanted: Sequence[Sequence[Hypothesis]]) -> None:
    """Assert that the texts are the same, and their scores where there are some."""
    for texts, others in zip(found, wanted, strict=True):
        assert [text[:2] for text in texts] == [text[:2] for text in others]
        for text, other in zip(texts, others, strict=True):
            assert text.score == (None if other.score is None else pytest.approx(other.score, abs=1e-4))


def _read(text: list[int], how: Generation, score: float | None) -> Hypothesis:
    end = next((place for place, token in enumerate(text) if token in how.end), len(text))
    return Hypothesis(tuple(text[:end]), end < len(text), score)
