"""Where a checkpoint comes from, as its name and its own page say: its licence goes on to whatever is made of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
    """The hub's name of a checkpoint, or of what it says it was made from, None where neither is known; and what its
    page states: the licence, with a name and a link where it is none of the usual ones, and the languages (ISO 639).
    """

    name: str | None = None
    licence: str | None = None
    licence_name: str | None = None
    licence_link: str | None = None
    languages: tuple[str, ...] = ()

    @staticmethod
    def stated(metadata: Mapping[str, Any]) -> Provenance:
        """Return what the metadata of a page states; what is not of the form that it should have counts as unsaid."""
        names = [name for name in _all(metadata.get("base_model"), _HUB_NAME) if ".." not in name]
        return Provenance(
            name=names[0] if names else None,
            licence=_first(metadata.get("license"), _LICENCE),
            licence_name=_first(metadata.get("license_name"), _TITLE),
            licence_link=_first(metadata.get("license_link"), _LINK),
            languages=_all(metadata.get("language"), _LANGUAGE),
        )

    @property
    def metadata(self) -> dict[str, Any]:
        """Return it as the hub reads it at the head of the page of something that is made from this."""
        stated = {
            "license": self.licence,
            "license_name": self.licence_name,
            "license_link": self.licence_link,
            "language": list(self.languages),
            "base_model": self.name,
        }
        return {name: value for name, value in stated.items() if value}


def provenance_of(source: str, directory: Path) -> Provenance:
    """Return what the checkpoint that was named `source`, and lies in `directory`, says of itself. A page that is
    missing or cannot be read states nothing.
    """
    stated = Provenance.stated(_front_matter(directory / PAGE))
    return replace(stated, name=hub_name(source) or stated.name)


def hub_name(source: str) -> str | None:
    """Return the name that a source has on the hub, or None where it is a file or a directory here."""
    here = Path(source).expanduser().exists()
    return source if not here and _HUB_NAME.fullmatch(source) and ".." not in source else None


def page_of(metadata: Mapping[str, Any], text: str) -> str:
    """Return a page of Markdown with the metadata at its head, as the hub reads it."""
    head = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{head}---\n\n{text}"


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
