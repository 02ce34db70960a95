"""A data set every machine already has: the source of Python's own standard library.

Given a docstring, or up to 64 tokens of code from one function, say which area of the library it comes from. Import
lines are dropped and module names are masked, so that the answer must be read out of what the code does.

Source: the `.py` files of the running interpreter (Python 3.10 to 3.14 have every area). Imports nothing but the
standard library.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.errors import BadFile
from models.files import write_text

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

# The areas with the most functions on every version, without those that some installations leave out (tkinter,
# turtle, idlelib), that newer versions removed (distutils, lib2to3), or that are tables (encodings).
AREAS: tuple[str, ...] = (
    "argparse",
    "asyncio",
    "collections",
    "datetime",
    "decimal",
    "email",
    "http",
    "importlib",
    "inspect",
    "ipaddress",
    "json",
    "logging",
    "multiprocessing",
    "pydoc",
    "tarfile",
    "typing",
    "unittest",
    "urllib",
    "xml",
    "zipfile",
)

MAX_TOKENS = 64
# Shorter ones (`def fileno(self): return self._fd`) could come from anywhere.
MIN_TOKENS = 12
MAX_TRAIN_PER_AREA = 2000
MAX_HELD_OUT_PER_AREA = 250
MASK = "MODULE"

# Areas whose source stands (also) in a file of another name.
_OTHER_FILES: Mapping[str, tuple[str, ...]] = {
    "collections": ("_collections_abc",),
    "datetime": ("_pydatetime",),
    "decimal": ("_pydecimal",),
}
_TOKEN = re.compile(r"\w+|[^\w\s]")
_IMPORT_LINE = re.compile(r"^\s*(?:>>>\s*|\.\.\.\s*)?(?:import\s+\w|from\s+[\w.]+\s+import\b).*$", re.MULTILINE)
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)


@dataclass(frozen=True)
class Snippet:
    """A piece of text and where it comes from.

    `qualified_name` is the area and the path of classes and function inside its file (`asyncio.Queue.get`); the file
    is left out because functions move between files from one version of Python to the next, and must not move
    between splits. `overlaps` says that half of the text also stands in the snippet before it.
    """

    text: str
    area: str
    qualified_name: str
    kind: Literal["code", "docstring"]
    overlaps: bool


@dataclass(frozen=True)
class _Piece:
    """One function's code or one docstring, before it is masked and cut."""

    text: str
    qualified_name: str
    kind: Literal["code", "docstring"]


def split_of(qualified_name: str) -> Split:
    """Return the split that everything under a qualified name belongs to: 80 % train, 10 % validation, 10 % test."""
    part = int.from_bytes(hashlib.sha256(qualified_name.encode()).digest()[:8], "big") % 10
    if part < 8:
        return "train"
    return "validation" if part == 8 else "test"


def _files(library: Path, area: str) -> list[Path]:
    found = [library / f"{name}.py" for name in (area, *_OTHER_FILES.get(area, ()))]
    found += sorted((library / area).rglob("*.py"))
    return [path for path in found if path.is_file() and not {"test", "tests"} & set(path.relative_to(library).parts)]


def _module_names(library: Path) -> list[str]:
    """Return the dotted names of all modules of all areas, longest first."""
    names = set(AREAS)
    for area in AREAS:
        for path in _files(library, area):
            parts = path.relative_to(library).with_suffix("").parts
            names.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return sorted(names, key=lambda name: (-len(name), name))


def _imported_modules(tree: ast.Module) -> set[str]:
    """Return the names that a file's imports bind to whole modules, as far as its text can tell."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.level or node.module in AREAS):
            names |= {alias.asname or alias.name for alias in node.names if (alias.asname or alias.name).islower()}
    return names


def _mask(text: str, modules: re.Pattern[str], imported: re.Pattern[str] | None) -> str:
    masked = modules.sub(MASK, _IMPORT_LINE.sub("", text))
    return imported.sub(MASK, masked) if imported else masked


def _code(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: Sequence[str]) -> str:
    """Return the source of a function without its docstring and its import lines."""
    dropped: set[int] = set()
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is not None:
        dropped |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    for inner in ast.walk(node):
        if isinstance(inner, (ast.Import, ast.ImportFrom)):
            dropped |= set(range(inner.lineno, (inner.end_lineno or inner.lineno) + 1))
    start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    kept = [number for number in range(start, (node.end_lineno or node.lineno) + 1) if number not in dropped]
    return "\n".join(lines[number - 1] for number in kept)


def _pieces(node: ast.AST, name: str, lines: Sequence[str]) -> Iterator[_Piece]:
    """Yield the docstrings and functions of a module or class, top to bottom.

    What is defined inside a function belongs to that function, so that no text is seen in two splits.
    """
    if isinstance(node, _DOCUMENTED):
        docstring = ast.get_docstring(node)
        if docstring:
            yield _Piece(docstring, name, "docstring")
    if isinstance(node, _FUNCTION):
        yield _Piece(_code(node, lines), name, "code")
        return
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (*_FUNCTION, ast.ClassDef)):
            yield from _pieces(child, f"{name}.{child.name}", lines)
        elif isinstance(child, (ast.If, ast.Try, ast.With)):
            yield from _pieces(child, name, lines)


def _windows(text: str) -> Iterator[tuple[str, bool]]:
    """Yield consecutive windows of at most 64 tokens, each starting in the middle of the one before it."""
    tokens = list(_TOKEN.finditer(text))
    half = MAX_TOKENS // 2
    for start in range(0, max(1, len(tokens) - half), half):
        window = tokens[start : start + MAX_TOKENS]
        if len(window) >= MIN_TOKENS:
            yield " ".join(text[window[0].start() : window[-1].end()].split()), start % MAX_TOKENS != 0


def _area_snippets(library: Path, area: str, modules: re.Pattern[str]) -> Iterator[Snippet]:
    for path in _files(library, area):
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source, filename=str(path))
        bound = _imported_modules(tree)
        imported = re.compile(rf"(?<![\w.])(?:{'|'.join(sorted(bound))})(?=\.\w)") if bound else None
        # Not splitlines(): a form feed, of which the library has many, is no new line to the parser.
        for piece in _pieces(tree, area, source.split("\n")):
            masked = _mask(piece.text, modules, imported if piece.kind == "code" else None)
            for text, overlaps in _windows(masked):
                yield Snippet(text, area, piece.qualified_name, piece.kind, overlaps)


def snippets(areas: Sequence[str] = AREAS) -> Iterator[Snippet]:
    """Yield every snippet of the areas in the order of the source, duplicates included.

    Raises:
        BadFile: this installation has no source files for an area.
    """
    library = Path(sysconfig.get_path("stdlib"))
    names = "|".join(re.escape(name) for name in _module_names(library))
    # JSON and Email give the answer away as well as json and email do; the http of an address does not.
    modules = re.compile(rf"(?<![\w.])(?:{names})(?!\w|://)", re.IGNORECASE)
    for area in areas:
        if not _files(library, area):
            version = ".".join(str(number) for number in sys.version_info[:2])
            raise BadFile(
                f"the source of the standard library's '{area}' is not installed (Python {version})",
                where=str(library),
                fix="Use an interpreter that comes with the .py files of its library.",
            )
        yield from _area_snippets(library, area, modules)


def _order(snippet: Snippet) -> str:
    return hashlib.sha256(snippet.text.encode()).hexdigest()


def tables() -> dict[Split, list[Snippet]]:
    """Return the snippets of each split, in an order that depends on their texts alone.

    Every text stands once, in one split: a text that two areas share is left out everywhere, one that an area repeats
    keeps its first place. Windows overlap in the training split only, so that held-out examples are as good as
    independent. No area has more than 2,000 snippets to train on and 250 in a held-out split.
    """
    first: dict[str, Snippet] = {}
    shared: set[str] = set()
    for snippet in snippets():
        known = first.setdefault(snippet.text, snippet)
        if known.area != snippet.area:
            shared.add(snippet.text)
    result: dict[Split, list[Snippet]] = {split: [] for split in SPLITS}
    counts: dict[tuple[Split, str], int] = {}
    for snippet in sorted((one for text, one in first.items() if text not in shared), key=_order):
        split = split_of(snippet.qualified_name)
        limit = MAX_TRAIN_PER_AREA if split == "train" else MAX_HELD_OUT_PER_AREA
        count = counts.get((split, snippet.area), 0)
        if count < limit and (split == "train" or not snippet.overlaps):
            counts[split, snippet.area] = count + 1
            result[split].append(snippet)
    return result


def write_tables(directory: Path) -> dict[Split, Path]:
    """Write `train.jsonl`, `validation.jsonl` and `test.jsonl` (keys `text` and `label`) and return their paths.

    The same interpreter writes the same bytes every time; the order of the lines is random but fixed, so that the
    first lines of a file are a fair sample of it.

    Raises:
        BadFile: this installation has no source files for an area.
    """
    paths: dict[Split, Path] = {}
    for split, rows in tables().items():
        lines = [json.dumps({"text": row.text, "label": row.area}, ensure_ascii=False) for row in rows]
        paths[split] = directory / f"{split}.jsonl"
        write_text(paths[split], "\n".join(lines) + "\n")
    return paths
