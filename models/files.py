"""Files and directories that appear whole or not at all. The only module that renames."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from models.errors import BadFile, BadInput

# No JSON file of ours is near this; a larger one is not ours, and reading it could exhaust memory.
MAX_JSON_BYTES = 64 * 1024 * 1024
_OLD = "-old"


def sha256_bytes(data: bytes) -> str:
    """Return the hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the hex SHA-256 of the file at `path`, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def digest_of(value: Any) -> str:
    """Return the hex SHA-256 of a JSON value; the order of keys does not matter."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole: beside its place, synced, then renamed over what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.partial-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole, indented, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, *, strict: bool = False) -> Any:
    """Return the JSON value in a file. A `strict` reading refuses what readers differ on: a key that an object has
    twice, and NaN.

    Raises:
        BadFile: the file is missing, too large, or not JSON.
    """
    rules: dict[str, Any] = {"object_pairs_hook": _without_repeats, "parse_constant": _no_number} if strict else {}
    try:
        if path.exists() and not path.is_file():
            raise BadFile("is no file", where=str(path))
        if path.stat().st_size > MAX_JSON_BYTES:
            raise BadFile(f"larger than {MAX_JSON_BYTES // 2**20} MB, which no file of this kind is", where=str(path))
        return json.loads(path.read_text(encoding="utf-8"), **rules)
    except FileNotFoundError:
        raise BadFile("there is no such file", where=str(path)) from None
    except (ValueError, RecursionError) as error:  # ValueError: broken JSON or UTF-8, or a number of too many digits
        raise BadFile(f"not valid JSON ({error})", where=str(path)) from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice in an object")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not a number")


def read_object(path: Path, *, strict: bool = False) -> dict[str, Any]:
    """Return the JSON object in a file, read as `read_json` reads; anything else in it is a BadFile."""
    value = read_json(path, strict=strict)
    if not isinstance(value, dict):
        raise BadFile("holds a JSON value that is not an object", where=str(path))
    return value


@contextmanager
def new_directory(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty directory beside `path` and rename it to `path` when the block ends well.

    Leftovers of an earlier kill (`.NAME.partial-*`) are removed first. On an error nothing appears. With `replace` a
    directory that stands there stays until the new one is complete, and is then removed. A kill between the two
    renames leaves neither; the next call puts the old one back.

    Raises:
        BadInput: `path` exists already and holds something, without `replace`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear(path)
    if not replace and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise BadInput("the output already exists and is not empty", where=str(path), fix="Choose another --out.")
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
    old = partial.with_name(partial.name + _OLD)
    try:
        yield partial
        partial.chmod(0o755)
        for file in sorted(partial.rglob("*")):
            _sync(file)
        _sync(partial)
        if path.exists():
            path.replace(old)
        partial.replace(path)
        _sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if old.exists() and not path.exists():
            old.replace(path)
        raise


def _clear(path: Path) -> None:
    """Remove what a killed `new_directory(path)` left; what it had moved aside and not yet replaced is put back."""
    for left in sorted(path.parent.iterdir()):
        if not left.name.startswith(f".{path.name}.partial-"):
            continue
        if left.name.endswith(_OLD) and not path.exists():
            left.replace(path)
        else:
            shutil.rmtree(left, ignore_errors=True)


def inside(root: Path, name: str) -> Path:
    """Return `root / name` for a relative name read from a file.

    Raises:
        BadFile: the name is absolute, climbs out of `root`, or is not in normal form.
    """
    pure = PurePosixPath(name)
    normal = bool(pure.parts) and str(pure) == name and name.isprintable()
    if not normal or pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name:
        raise BadFile(f"names the unsafe path {name!r}", where=str(root))
    return root / pure


def digest_files(root: Path) -> dict[str, tuple[str, int]]:
    """Return every file below `root` as relative name -> (sha256, bytes), sorted by name."""
    files = sorted(file for file in root.rglob("*") if file.is_file())
    return {file.relative_to(root).as_posix(): (sha256_file(file), file.stat().st_size) for file in files}


def bytes_below(root: Path) -> int:
    """Return the size of all files below `root`."""
    return sum(file.stat().st_size for file in root.rglob("*") if file.is_file())


def check_files(root: Path, expected: Mapping[str, tuple[str, int]], *, fix: str = "Make the artifact again.") -> None:
    """Compare the files below `root` with their recorded (sha256, bytes).

    Raises:
        BadFile: files are missing or changed; all of them are named in one message.
    """
    problems = []
    for name, (digest, size) in sorted(expected.items()):
        path = inside(root, name)
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif path.stat().st_size != size:
            problems.append(f"{name} has {path.stat().st_size} bytes, recorded {size}")
        elif sha256_file(path) != digest:
            problems.append(f"{name} does not match its recorded digest")
    if problems:
        raise BadFile("; ".join(problems), where=str(root), fix=fix)


def check_no_links(root: Path, names: Collection[str]) -> None:
    """Check that the files of these relative names lie below `root` themselves.

    Raises:
        BadFile: a name is unsafe, or it or a folder on its way is a link; all links are named.
    """
    ways = {place for name in names for place in (inside(root, name), *inside(root, name).parents)}
    found = sorted(place.relative_to(root).as_posix() for place in ways if root in place.parents and place.is_symlink())
    if found:
        raise BadFile(
            f"links that may lead elsewhere: {', '.join(found)}",
            where=str(root),
            fix="Copy the files themselves in their place (`cp -RL`).",
        )


def check_no_others(root: Path, known: Collection[str]) -> None:
    """Check that nothing lies below `root` besides the known files and the folders that hold them.

    Raises:
        BadFile: there is another file or folder, a link, or what is no file; the first of them are named.
    """
    folders = {parent.as_posix() for name in known for parent in PurePosixPath(name).parents}
    problems = []
    for place, below, names in os.walk(root):
        for name in (*below, *names):
            path = Path(place, name)
            told = path.relative_to(root).as_posix()
            if path.is_symlink():
                problems.append(f"{told} is a link")
            elif told not in (folders if name in below else known):
                problems.append(f"{told} is not listed")
            elif name in names and not path.is_file():
                problems.append(f"{told} is no file")
        below[:] = [name for name in below if Path(place, name).relative_to(root).as_posix() in folders]
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        fix = "Remove it: nothing else belongs here."
        raise BadFile("; ".join(sorted(problems)[:5]) + more, where=str(root), fix=fix)
