"""How long work says how far it is, without knowing who shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Where a piece of work says how far it is."""

    def __call__(self, label: str) -> Callable[[int, int], None]:
        """Return a function that takes (done, total) for a named piece of work; done == total ends it."""


def silent(label: str) -> Callable[[int, int], None]:
    """Return a progress function that shows nothing."""
    return lambda done, total: None
