"""HTML and SVG elements whose text is escaped because nothing else can be built."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias, final

_VOID = frozenset({"meta", "br", "hr", "col"})
# Neither HTML nor UTF-8 can hold these: control characters and halves of surrogate pairs.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@final
@dataclass(frozen=True, slots=True)
class Markup:
    """Text that is markup already. Only this module and the template make it."""

    text: str


Child: TypeAlias = "Markup | str | int | float | None | Iterable[Markup]"


def el(name: str, *children: Child, **attributes: str | int | float | None) -> Markup:
    """Return `<name attributes>children</name>`: text escaped, None left out, numbers short.

    `class_` gives `class`, other underscores become hyphens: `text_anchor`, `aria_label`.
    """
    words = "".join(
        f' {_attribute(key)}="{escaped(_shown(value))}"' for key, value in attributes.items() if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{words}>")
    return Markup(f"<{name}{words}>{join(children).text}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Return children one after the other."""
    return Markup("".join(_child(child) for child in children))


def escaped(text: str) -> str:
    """Return text that shows as itself in HTML, in an attribute too."""
    return html.escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text), quote=True)


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child.text
    if isinstance(child, (str, int, float)):
        return escaped(_shown(child))
    return join(child).text


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _shown(value: str | int | float) -> str:
    if isinstance(value, float):
        short = f"{value:.2f}".rstrip("0").rstrip(".")
        return "0" if short in ("-0", "") else short
    return str(value)
