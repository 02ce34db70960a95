"""Where a checkpoint comes from, as its name and its own page say: its licence goes on to what is made of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import yaml

PAGE: Final = "README.md"
MAX_PAGE_BYTES: Final = 1 << 20
_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?(:[\w.-]{1,95})?")
_LICENCE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,59}")
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}|code|multilingual")
_LINK: Final = re.compile(r"https://[\w./%#?=&+~-]{1,300}")
_TITLE: Final = re.compile(r"[\w .,()+-]{1,100}")


@final
@dataclass(frozen=True, slots=True)
class Provenance:
    """The hub's name of a checkpoint, None of one from a directory; and what its page states: the licence, with a name
    and a link where it is none of the usual ones, and the languages (ISO 639).
    """

    name: str | None = None
    licence: str | None = None
    licence_name: str | None = None
    licence_link: str | None = None
    languages: tuple[str, ...] = ()


def provenance_of(source: str, directory: Path) -> Provenance:
    """Return what the checkpoint that was named `source`, and lies in `directory`, says of itself. A page that is
    missing or cannot be read states nothing.
    """
    stated = _front_matter(directory / PAGE)
    return Provenance(
        name=hub_name(source),
        licence=_first(stated.get("license"), _LICENCE),
        licence_name=_first(stated.get("license_name"), _TITLE),
        licence_link=_first(stated.get("license_link"), _LINK),
        languages=_all(stated.get("language"), _LANGUAGE),
    )


def hub_name(source: str) -> str | None:
    """Return the name that a source has on the hub, or None where it is a file or a directory here."""
    here = Path(source).expanduser().exists()
    return source if not here and _HUB_NAME.fullmatch(source) and ".." not in source else None


def _front_matter(page: Path) -> Mapping[str, Any]:
    """Return the metadata at the head of a page."""
    try:
        with page.open(encoding="utf-8") as stream:
            text = stream.read(MAX_PAGE_BYTES)
        found = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
        stated = yaml.safe_load(found.group(1)) if found else None
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    return stated if isinstance(stated, dict) else {}


def _all(value: Any, form: re.Pattern[str]) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(one for one in values[:100] if isinstance(one, str) and form.fullmatch(one))


def _first(value: Any, form: re.Pattern[str]) -> str | None:
    return next(iter(_all(value, form)), None)
