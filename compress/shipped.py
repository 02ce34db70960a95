"""The recipes that come with the package. Loads nothing, so that the command line may name them."""

from __future__ import annotations

from importlib import resources

_ENDING = ".yaml"


def shipped_names() -> list[str]:
    """Return the recipes' names, sorted."""
    entries = (resources.files("compress") / "recipes").iterdir()
    return sorted(entry.name.removesuffix(_ENDING) for entry in entries if entry.name.endswith(_ENDING))


def shipped_text(name: str) -> str:
    """Return the YAML text of one of them."""
    return (resources.files("compress") / "recipes" / f"{name}{_ENDING}").read_text(encoding="utf-8")
