"""Files and directories appear whole or not at all, whatever fails, and wherever a kill strikes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import files
from models.errors import BadFile, BadInput
from models.files import (
    check_files,
    digest_files,
    digest_of,
    inside,
    new_directory,
    read_json,
    read_object,
    sha256_bytes,
    sha256_file,
    write_bytes,
    write_json,
    write_text,
)

OPERATIONS: tuple[tuple[Any, str], ...] = (
    (os, "fsync"),
    (os, "open"),
    (os, "fdopen"),
    (os, "close"),
    (tempfile, "mkstemp"),
    (tempfile, "mkdtemp"),
    (Path, "replace"),
    (Path, "chmod"),
    (Path, "mkdir"),
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def fail_at(number: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Let the numbered file operation raise, as a full disk would; return how many were begun."""
    begun = 0

    def guarded(plain: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **options: Any) -> Any:
            nonlocal begun
            begun += 1
            if begun == number:
                raise OSError(28, "No space left on device")
            return plain(*arguments, **options)

        return operation

    for owner, name in OPERATIONS:
        monkeypatch.setattr(owner, name, guarded(getattr(owner, name)))
    return lambda: begun


def tree(directory: Path) -> dict[str, str]:
    return {file.relative_to(directory).as_posix(): file.read_text() for file in directory.rglob("*") if file.is_file()}


def fill(partial: Path) -> None:
    (partial / "a").write_text("new a")
    (partial / "inner").mkdir()
    (partial / "inner" / "b").write_text("new b")


NEW = {"a": "new a", "inner/b": "new b"}
OLD = {"a": "old a"}


@pytest.mark.parametrize("before", [None, "old"])
def test_a_file_is_old_or_new_wherever_it_fails(before: str | None, tmp_path: Path) -> None:
    path, number, failures = tmp_path / "file", 0, 0
    while True:
        number += 1
        path.unlink(missing_ok=True)
        if before is not None:
            path.write_text(before)
        with pytest.MonkeyPatch.context() as patch:
            begun = fail_at(number, patch)
            try:
                write_text(path, "new")
            except OSError:
                failures += 1
            else:
                break
        assert (path.read_text() if path.exists() else None) in (before, "new"), number
        assert number == 3 or not [entry for entry in tmp_path.iterdir() if entry != path], number
        for left in tmp_path.glob(".*"):
            left.unlink()
    assert begun() < number
    assert failures >= 6
    assert path.read_text() == "new"


@pytest.mark.parametrize("replace", [False, True])
def test_a_directory_is_old_or_new_wherever_it_fails(tmp_path: Path, *, replace: bool) -> None:
    path, number, failures = tmp_path / "out", 0, 0
    while True:
        number += 1
        shutil.rmtree(path, ignore_errors=True)
        if replace:
            path.mkdir()
            (path / "a").write_text("old a")
        with pytest.MonkeyPatch.context() as patch:
            begun = fail_at(number, patch)
            try:
                with new_directory(path, replace=replace) as partial, pytest.MonkeyPatch.context() as healthy:
                    for owner, name in OPERATIONS:
                        healthy.setattr(owner, name, getattr(owner, name))
                    fill(partial)
            except OSError:
                failures += 1
        if begun() < number:
            break
        state = tree(path) if path.exists() else None
        assert state in ((OLD, NEW) if replace else (None, NEW)), number
    assert failures >= 8
    assert tree(path) == NEW
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_what_was_moved_aside_counts_as_there(tmp_path: Path) -> None:
    (tmp_path / ".out.partial-x-old").mkdir()
    (tmp_path / ".out.partial-x-old" / "a").write_text("old a")
    (tmp_path / ".out.partial-x").mkdir()
    with pytest.raises(BadInput, match="not empty"), new_directory(tmp_path / "out"):
        pytest.fail("was let in")
    assert tree(tmp_path) == {"out/a": "old a"}


KILLED = """
import os, signal, sys, tempfile
from pathlib import Path
from models.files import new_directory
number, begun, path = int(sys.argv[1]), 0, Path(sys.argv[2])
def guarded(plain):
    def operation(*arguments, **options):
        global begun
        begun += 1
        if begun == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(*arguments, **options)
    return operation
for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "chmod"), (tempfile, "mkdtemp"), (Path, "write_text")):
    setattr(owner, name, guarded(getattr(owner, name)))
with new_directory(path, replace=True) as partial:
    (partial / "a").write_text("new a")
    (partial / "inner").mkdir()
    (partial / "inner" / "b").write_text("new b")
"""


def killed_at(number: int, path: Path) -> int:
    command = [sys.executable, "-c", KILLED, str(number), str(path)]
    root = Path(files.__file__).parents[1]
    return subprocess.run(command, cwd=root, check=False, capture_output=True).returncode


@pytest.mark.parametrize("before", [None, OLD], ids=["nothing", "old"])
def test_a_kill_at_any_operation_leaves_old_or_new(before: dict[str, str] | None, tmp_path: Path) -> None:
    kills = 0
    for number in range(1, 40):
        room = tmp_path / str(number)
        path = room / "out"
        path.mkdir(parents=True)
        if before is None:
            path.rmdir()
        else:
            (path / "a").write_text("old a")
        code = killed_at(number, path)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
        if path.exists():
            assert tree(path) in (before, NEW), number
        # The next call clears what was left, and puts back what was only moved aside.
        with pytest.raises(KeyError), new_directory(path, replace=True):
            raise KeyError
        assert (tree(path) if path.exists() else None) in (before, NEW), number
        assert [entry.name for entry in room.iterdir()] == (["out"] if path.exists() else [])
    assert kills >= 9
    assert tree(path) == NEW


def test_what_others_left_beside_it_is_not_touched(tmp_path: Path) -> None:
    for name in (".other.partial-x", "out.partial-x", ".out", "out2"):
        (tmp_path / name).mkdir()
    with new_directory(tmp_path / "out") as partial:
        fill(partial)
    names = {entry.name for entry in tmp_path.iterdir()}
    assert names == {".other.partial-x", "out.partial-x", ".out", "out2", "out"}


def test_an_output_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(BadInput, match=r"not empty.*--out"), new_directory(tmp_path / "out"):
        pytest.fail("was let in")
    assert tree(tmp_path) == {"out/thesis.txt": "years of work"}
    with pytest.raises(BadInput, match="not empty"), new_directory(tmp_path / "out" / "thesis.txt"):
        pytest.fail("was let in")


def test_an_empty_output_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with new_directory(tmp_path / "out") as partial:
        fill(partial)
    assert tree(tmp_path / "out") == NEW
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


def test_parents_are_made(tmp_path: Path) -> None:
    with new_directory(tmp_path / "a" / "b" / "c") as partial:
        fill(partial)
    assert tree(tmp_path / "a" / "b" / "c") == NEW
    write_text(tmp_path / "x" / "y", "z")
    assert (tmp_path / "x" / "y").read_text() == "z"
    assert (tmp_path / "x" / "y").stat().st_mode & 0o777 == 0o644


@given(json_values)
def test_json_goes_both_ways(value: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        write_json(Path(directory) / "v.json", value)
        assert read_json(Path(directory) / "v.json") == value


@given(st.dictionaries(st.text(), json_values, min_size=2, max_size=5))
def test_a_digest_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    turned = dict(reversed(value.items()))
    assert digest_of(turned) == digest_of(value)
    assert digest_of([turned, "more"]) != digest_of(value)


def test_digests_are_sha256(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "f").write_bytes(data)
    assert sha256_file(tmp_path / "f") == sha256_bytes(data)
    assert sha256_bytes(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digest_of({"b": 1, "a": [None, "é"]}) == sha256_bytes('{"a":[null,"é"],"b":1}'.encode())


def test_numbers_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "v.json", float("nan"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 200_000, b'{"a": 1} x'])
def test_json_that_is_none(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "v.json").write_bytes(data)
    with pytest.raises(BadFile, match=r"v\.json: not valid JSON"):
        read_json(tmp_path / "v.json")


def test_json_that_is_missing_or_huge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadFile, match="no such file"):
        read_json(tmp_path / "v.json")
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 10)
    (tmp_path / "v.json").write_text(json.dumps("x" * 20))
    with pytest.raises(BadFile, match="larger than"):
        read_json(tmp_path / "v.json")


@pytest.mark.parametrize("text", ["[]", "3", "null", '"x"'])
def test_json_that_is_no_object(text: str, tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text(text)
    with pytest.raises(BadFile, match="not an object"):
        read_object(tmp_path / "v.json")


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/../b", "a/..", "/x", "//x", "a//b", "a/", "./a", "a\\b", "..\\x", "C:x", "a\0b", "a\nb"],
)
def test_unsafe_paths(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="unsafe path"):
        inside(tmp_path, name)


@given(st.text(max_size=12))
def test_what_is_inside_stays_inside(name: str) -> None:
    root = Path("/root of it")
    try:
        path = inside(root, name)
    except BadFile:
        return
    assert os.path.normpath(path).startswith("/root of it/")  # noqa: PTH100, PTH118


@pytest.mark.parametrize(
    "name", ["a", "a/b", "model-00001-of-00002.safetensors", ".hidden", "a b/ü.json", "...", "a..b"]
)
def test_safe_paths(name: str, tmp_path: Path) -> None:
    assert inside(tmp_path, name) == tmp_path / name


def test_every_problem_of_a_directory_is_named(tmp_path: Path) -> None:
    fill(tmp_path)
    write_bytes(tmp_path / "c", b"c" * 10)
    write_bytes(tmp_path / "d", b"d" * 10)
    recorded = digest_files(tmp_path)
    assert list(recorded) == ["a", "c", "d", "inner/b"]
    check_files(tmp_path, recorded)
    (tmp_path / "inner" / "b").unlink()
    (tmp_path / "c").write_bytes(b"c" * 9)
    (tmp_path / "d").write_bytes(b"D" * 10)
    with pytest.raises(BadFile) as caught:
        check_files(tmp_path, recorded)
    for part in ("inner/b is missing", "c has 9 bytes, recorded 10", "d does not match its recorded digest"):
        assert part in str(caught.value)
    with pytest.raises(BadFile, match="unsafe path"):
        check_files(tmp_path, {"../a": ("0" * 64, 1)})
