"""Memory that is free but still held."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Options of glibc's mallopt(3), and what its thresholds grow to by themselves in a process that asks for large blocks.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
USUAL = {MMAP_MAX: 65_536, MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20}
HELD = {MMAP_MAX: 0, TRIM_THRESHOLD: -1}


def give_back() -> None:
    """Return freed memory to the system.

    Batches of many lengths leave the C library's heap in pieces that it keeps: over a whole run they were half of the
    resident memory. Does nothing where the C library is not glibc.
    """
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


@contextmanager
def held() -> Iterator[None]:
    """Keep freed memory for whoever asks next, until `give_back`.

    glibc maps every block above 32 MB anew, and the system clears it page by page: with logits over 10,000 words that
    was more than half of a training step. Does nothing where the C library is not glibc.
    """
    option = _of_glibc("mallopt")
    try:
        _set(option, HELD)
        yield
    finally:
        _set(option, USUAL)


def _set(option: Callable[[int, int], int] | None, values: dict[int, int]) -> None:
    if option is not None:
        for name, value in values.items():
            option(name, value)


def _of_glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
