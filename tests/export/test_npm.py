"""Packages come by npm, are what their digests say, and are kept."""

from __future__ import annotations

import io
import tarfile
from base64 import b64encode
from hashlib import sha512
from pathlib import Path

import pytest

from export.npm import RUNTIME, TOKENIZERS, Package, command, package_files
from models.errors import BadFile, BadInput


def archive(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as members:
        for name, data in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            members.addfile(member, io.BytesIO(data))
    return stream.getvalue()


ARCHIVE = archive(code=b"let", other=b"not asked for")
PACKAGE = Package("@some/thing", "1.2.3", b64encode(sha512(ARCHIVE).digest()).decode(), {"code": "thing.mjs"})


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that npm gives for any package; there is nothing else on the path."""
    programs, given = tmp_path / "programs", tmp_path / "given"
    programs.mkdir()
    given.write_bytes(ARCHIVE)
    asked = '[ "$1 $2 $3" = "pack @some/thing@1.2.3 --pack-destination" ]'
    (programs / "npm").write_text(f'#!/bin/sh\n{asked} && /bin/cp {given} "$4/x.tgz"\n')
    (programs / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    return given


def test_a_package_is_fetched_once(npm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert package_files(PACKAGE, tmp_path / "cache") == {"thing.mjs": b"let"}
    monkeypatch.setenv("PATH", "")
    assert package_files(PACKAGE, tmp_path / "cache") == {"thing.mjs": b"let"}


def test_a_kept_package_that_was_changed_is_fetched_again(npm: Path, tmp_path: Path) -> None:
    package_files(PACKAGE, tmp_path)
    (kept,) = (tmp_path / "npm").iterdir()
    kept.write_bytes(ARCHIVE[:-1])
    assert package_files(PACKAGE, tmp_path) == {"thing.mjs": b"let"}
    assert kept.read_bytes() == ARCHIVE


def test_another_package_than_the_digest_says_is_refused(npm: Path, tmp_path: Path) -> None:
    npm.write_bytes(archive(code=b"evil"))
    with pytest.raises(BadFile, match=r"some/thing@1.2.3 that is not what its digest says"):
        package_files(PACKAGE, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_registry_that_does_not_answer_is_told(npm: Path, tmp_path: Path) -> None:
    program = tmp_path / "programs" / "npm"
    program.write_text("#!/bin/sh\necho first >&2\necho 'npm error ENOTFOUND' >&2\nexit 1\n")
    with pytest.raises(BadInput, match=r"npm does not give @some/thing@1.2.3 \(npm error ENOTFOUND\).*`npm ping`"):
        package_files(PACKAGE, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_program_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match=r"export.target: web: .* npm, which is not found Install Node.js"):
        package_files(PACKAGE, tmp_path / "cache")
    with pytest.raises(BadInput, match="made with node"):
        command("node")


def test_what_is_fetched_is_pinned() -> None:
    for package in (RUNTIME, TOKENIZERS):
        assert len(package.sha512) == 88
        assert package.version.replace(".", "").isdigit()
