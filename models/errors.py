"""Every error the project raises on purpose.

CompressError            what was wrong, where, what to do
├── BadInput             a setting, a column, a label, a text: the caller's words
│   └── Unreachable      a target that no plan reaches
├── BadFile              a file is missing, truncated, of another format, or not what its digest says
├── Unsupported          a family, an operator or a form that is real but not ours
├── Mismatch             two computations that must agree do not (parity, golden outputs)
└── GateFailed           a candidate is not good enough

The command line maps these to exit codes; nothing else catches them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CompressError(Exception):
    """What was wrong, where it was met, and what to do about it."""

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        text = self.what if self.where is None else f"{self.where}: {self.what}"
        return text if self.fix is None else f"{text} {self.fix}"


class BadInput(CompressError):
    """The caller asked for something that cannot be: a setting, a column, a label, a text."""


class Unreachable(BadInput):
    """A target that lies beyond what can be removed."""


class BadFile(CompressError):
    """A file is missing, truncated, of another format, or not what its digest says."""


class Unsupported(CompressError):
    """A family, an operator or a form that exists but that this project does not handle."""


class Mismatch(CompressError):
    """Two computations that must agree do not."""


class GateFailed(CompressError):
    """A candidate did not pass its gate."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known name closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""
