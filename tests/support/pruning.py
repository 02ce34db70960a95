"""Plans and scores of encoders, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from compress.pruning.importance import Scores, Values
from compress.pruning.plan import Kept, Plan

T = TypeVar("T")


def plan_of(heads: Sequence[Kept], neurons: Sequence[Kept]) -> Plan:
    """Return the plan that keeps these heads and neurons of every layer."""
    return Plan(by_path(heads, neurons))


def scores_of(heads: Sequence[Values], neurons: Sequence[Values]) -> Scores:
    """Return these scores of the heads and neurons of every layer."""
    return by_path(heads, neurons)


def by_path(heads: Sequence[T], neurons: Sequence[T]) -> dict[str, T]:
    """Return what is given of heads and of neurons for every layer, by the paths of their sublayers."""
    parts = {"attention": heads, "ffn": neurons}
    return {f"layers.{index}.{part}": each for part, units in parts.items() for index, each in enumerate(units)}
