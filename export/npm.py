"""What a page runs on: two packages of npm, by version and digest, kept in the cache as they were sent."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha512
from pathlib import Path
from typing import Final, NamedTuple

from models.errors import BadFile, BadInput
from models.files import write_bytes

WHERE: Final = "export.target: web"
_SECONDS: Final = 600
_INSTALL: Final = "Install Node.js 18 or later, which brings npm, so that both commands are found."


class Package(NamedTuple):
    """A package as the registry gives it: `sha512` of the archive in base64, and the `files` that a page needs, by
    their paths in the package, with the names they get. Scripts end in .js, for servers that do not know .mjs.
    """

    name: str
    version: str
    sha512: str
    files: Mapping[str, str]

    @property
    def spec(self) -> str:
        """Return name and version as npm takes them."""
        return f"{self.name}@{self.version}"


# The build for WebAssembly alone: one for WebGPU is twice as large, and its kernels do not know our int8.
RUNTIME: Final = Package(
    "onnxruntime-web",
    "1.30.0",
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    {
        "dist/ort.wasm.bundle.min.mjs": "ort.wasm.bundle.min.js",
        "dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
    },
)
TOKENIZERS: Final = Package(
    "@huggingface/tokenizers",
    "0.2.0",
    "LidMHe1FpcSYH4vcSjXooda34pC0M8m1gmDOv7SQi6Iv+ib1zX7J3sHBCC9/3FPCkn2k1b55FneVqMRxrr99pg==",
    {"dist/tokenizers.min.mjs": "tokenizers.min.js", "LICENSE": "tokenizers.LICENSE.txt"},
)


def command(name: str) -> str:
    """Return the path of `npm` or `node`.

    Raises:
        BadInput: it is not installed.
    """
    path = shutil.which(name)
    if path is None:
        raise BadInput(f"a page for browsers is made with {name}, which is not found", where=WHERE, fix=_INSTALL)
    return path


def package_files(package: Package, cache: Path) -> dict[str, bytes]:
    """Return the files that a page needs of a package; it is fetched where the cache does not hold it.

    Raises:
        BadInput: npm is not there, or does not give the package.
        BadFile: what it gives is not what the digest says.
    """
    kept = cache / "npm" / f"{package.spec.replace('/', '-').lstrip('@')}.tgz"
    archive = kept.read_bytes() if kept.is_file() else b""
    if not _is_right(archive, package):
        archive = _fetched(package)
        if not _is_right(archive, package):
            raise BadFile(
                f"npm gave a {package.spec} that is not what its digest says", where=WHERE, fix=_registry(kept)
            )
        write_bytes(kept, archive)
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as members:
        return {ours: _member(members, theirs) for theirs, ours in package.files.items()}


def _is_right(archive: bytes, package: Package) -> bool:
    return b64encode(sha512(archive).digest()).decode("ascii") == package.sha512


def _fetched(package: Package) -> bytes:
    npm = command("npm")
    with tempfile.TemporaryDirectory() as scratch:
        words = [npm, "pack", package.spec, "--pack-destination", scratch, "--ignore-scripts", "--silent"]
        try:
            done = subprocess.run(words, cwd=scratch, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise BadInput(f"npm gave no {package.spec} in {_SECONDS} s", where=WHERE, fix=_registry(None)) from None
        archives = sorted(Path(scratch).glob("*.tgz"))
        if done.returncode or not archives:
            said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise BadInput(f"npm does not give {package.spec} ({said})", where=WHERE, fix=_registry(None))
        return archives[0].read_bytes()


def _registry(kept: Path | None) -> str:
    place = "" if kept is None else f" It is kept as {kept}."
    return f"See that `npm ping` reaches a registry; what was fetched once is used again without it.{place}"


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(f"package/{name}")
    assert file is not None  # the digest says what the archive holds
    return file.read()
