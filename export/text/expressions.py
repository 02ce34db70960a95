"""Regular expressions, of RE2, that cut texts in a graph."""

from __future__ import annotations

import re
from collections.abc import Iterable

from export.emit import Emit
from export.values import MICROSOFT, Value


def cut(emit: Emit, text: Value, expression: str, *, role: str) -> Value:
    """Return (1, parts) what matches of a text (1,), each as long as it can be; what is between is left out."""
    (parts,) = emit.of_domain(
        MICROSOFT, "Tokenizer", text, roles=(role,), tokenexp=expression, mark=0, pad_value="", mincharnum=1
    )
    return parts


def one_of(characters: Iterable[str]) -> str:
    """Return the regular expression of one of these characters, without its brackets."""
    ranges: list[list[int]] = []
    for code in sorted(map(ord, characters)):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(rf"\x{{{first:X}}}-\x{{{last:X}}}" for first, last in ranges)


def any_of(texts: Iterable[str]) -> str:
    """Return the front of a regular expression that takes one of these texts before anything else."""
    return "".join(f"{quoted(text)}|" for text in texts)


def quoted(text: str) -> str:
    """Return the regular expression, of RE2, of a text."""
    return re.sub(r"[^\w\s]", lambda found: "\\" + found[0] if found[0].isascii() else found[0], text)
