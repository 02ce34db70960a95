"""What the pages say is what the program does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from support.recipe_page import page
from typer.main import get_command

from compress.cli import app
from compress.recipe import shipped_recipes

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CODE = re.compile(r"```[a-z]*\n(.*?)```|`([^`\n]+)`", re.DOTALL)


def test_the_recipe_page_lists_every_key() -> None:
    assert (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8") == page(), (
        "run: python tests/support/recipe_page.py"
    )


def commands(text: str) -> list[list[str]]:
    """Return the words of every `compress ...` command line in a page, with continued lines joined."""
    found = [block or inline for block, inline in CODE.findall(text)]
    lines = [line.strip() for code in found for line in code.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("compress ")]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_command_line_in_a_page_is_one(path: Path) -> None:
    known = get_command(app).commands  # type: ignore[attr-defined]
    for words in commands(path.read_text(encoding="utf-8")):
        if len(words) == 1 or words[1] == "..." or words[1].startswith("--"):
            continue
        assert words[1] in known, words
        parameters = known[words[1]].params
        options = {name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)}
        assert {word.partition("=")[0] for word in words[2:] if word.startswith("--")} <= options | {"--help"}, words
        if words[1] == "run" and len(words) > 2 and words[2].isalnum() and words[2].islower():
            assert words[2] in shipped_recipes(), words


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_in_a_page_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
