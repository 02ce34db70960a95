"""The comparison of a layer in int8 and in blocks of 4 bits, on tiny layers."""

from __future__ import annotations

import pytest

import blocks


def test_every_size_is_multiplied_in_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "CALL_WEIGHTS", 10_000)
    found = blocks.measured(["40x8", "32x5"], (1, 3), rounds=2)
    assert [(row.size, row.rows) for row in found] == [("40x8", 1), ("40x8", 3), ("32x5", 1), ("32x5", 3)]
    ways = ["int8", *(f"4 bits, blocks of {inputs}" for inputs in (32, 64, 128)), "8 bits, blocks of 128"]
    for row in found:
        assert list(row.rounds) == ways
        assert all(len(own) == 2 and min(own) >= 0 for own in row.rounds.values())
    assert (
        blocks.table(found).splitlines()[0]
        == "| inputs x outputs | rows | " + " | ".join(f"{way}, µs" for way in ways) + " |"
    )
