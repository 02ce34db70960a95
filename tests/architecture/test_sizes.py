"""Files and functions stay small enough to be read, and the rules that a linter cannot say hold."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.real import ROOT

PACKAGES = ("compress", "export", "models", "teacher_student")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS, MEDIAN_FILE = 400, 60, 8, 150
Function = ast.FunctionDef | ast.AsyncFunctionDef
files = pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())


def functions(file: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines(function: Function) -> int:
    """Return the lines of a function, its docstring left out."""
    first = function.body[0]
    docstring = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    spoken = (first.end_lineno or 0) - first.lineno + 1 if docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - spoken


@files
def test_sizes(file: Path) -> None:
    total = len(file.read_text(encoding="utf-8").splitlines())
    assert total <= MAX_FILE, f"{total} lines"
    long = {function.name: lines(function) for function in functions(file) if lines(function) > MAX_FUNCTION}
    assert long == {}
    wide = {
        function.name
        for function in functions(file)
        if len([*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]) - _is_method(function)
        > MAX_PARAMETERS
    }
    # The command line's parameters are its flags, each of which has to be written down once.
    assert wide == set() or "cli" in file.parts


def _is_method(function: Function) -> int:
    arguments = [*function.args.posonlyargs, *function.args.args]
    return int(bool(arguments) and arguments[0].arg in ("self", "cls"))


def test_the_median_file_is_short() -> None:
    assert statistics.median(len(file.read_text(encoding="utf-8").splitlines()) for file in FILES) <= MEDIAN_FILE


@files
def test_no_broad_except(file: Path) -> None:
    broad = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ExceptHandler):
            continue
        names = (
            {"bare"} if node.type is None else {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)}
        )
        raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
        # What cleans up and raises again swallows nothing.
        if names & {"bare", "Exception", "BaseException"} and not raises:
            broad.append(node.lineno)
    assert broad == []


@files
def test_every_file_says_what_it_is(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    if text.strip():
        tree = ast.parse(text)
        assert ast.get_docstring(tree), "no docstring"
        assert "from __future__ import annotations" in text or len(tree.body) == 1


@files
def test_no_file_is_a_drawer(file: Path) -> None:
    banned = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "handlers"}
    assert not banned & {file.stem, *file.relative_to(ROOT).parts}


def test_tests_mirror_the_packages() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))
    assert {entry.name for entry in (ROOT / "tests").iterdir() if entry.is_dir() and any(entry.glob("*.py"))} <= {
        *PACKAGES,
        "architecture",
        "benchmarks",
        "attacks",
        "cli",
        "real",
        "support",
        "docs",
        "ecosystem",
    }
