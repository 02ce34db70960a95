"""A Python for 64-bit Arm that QEMU runs: the system's own packages and wheels for it, unpacked into a folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from support.real import ROOT

from against_peers.tools import last_line

# An older one ends in a segmentation fault when it loads ONNX Runtime; 10.0 does not.
LEAST_QEMU = 10
SYSTEM = ("python3", "libstdc++6")
WHEELS = (
    "annotated-types",
    "ml_dtypes",
    "numpy",
    "onnx",
    "onnxruntime",
    "protobuf",
    "pydantic",
    "pydantic_core",
    "tokenizers",
    "typing-inspection",
    "typing_extensions",
)
GLIBC = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_26", "manylinux_2_24", "manylinux_2_17", "manylinux2014")


def aarch64_python(folder: Path, processor: str) -> list[str]:
    """Return the command of a Python for Arm with what a verifier needs, on a `processor` that QEMU knows, or skip; it
    is made in `folder` once.
    """
    qemu, apt = shutil.which("qemu-aarch64"), shutil.which("apt-get")
    if qemu is None or apt is None:
        pytest.skip("needs qemu-aarch64 and apt-get")
    told = re.search(r"version (\d+)", _said([qemu, "--version"]))
    if told is None or int(told[1]) < LEAST_QEMU:
        pytest.skip(f"needs QEMU {LEAST_QEMU} or later")
    root, site = folder / "aarch64" / "root", folder / "aarch64" / "site"
    if not root.exists():
        _unpack_system(apt, root)
    (python,) = (path for path in (root / "usr" / "bin").glob("python3.*") if path.name[8:].isdecimal())
    if not site.exists():
        _unpack_wheels(python.name.removeprefix("python"), site)
    settings = {"PYTHONHOME": f"{root}/usr", "PYTHONPATH": f"{site}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    told_to = [word for name, value in settings.items() for word in ("-E", f"{name}={value}")]
    return [qemu, "-cpu", processor, "-L", str(root), *told_to, str(python)]


def _unpack_system(apt: str, root: Path) -> None:
    """Download the packages with all that they need, as for an empty system, and unpack them."""
    work = root.with_name("apt")
    for name in ("lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True, exist_ok=True)
    (work / "status").touch()
    places = {"Lists": "lists", "status": "status"}
    options = [f"-oDir::State::{name}={work / place}" for name, place in places.items()]
    options += [f"-oDir::Cache={work / 'cache'}", "-oAPT::Architecture=arm64", "-oAPT::Architectures=arm64"]
    _said([apt, *options, "update"])
    _said([apt, *options, "--yes", "--no-install-recommends", "--download-only", "install", *SYSTEM])
    unpacked = root.with_name("unpacking")
    shutil.rmtree(unpacked, ignore_errors=True)
    for package in sorted((work / "cache" / "archives").glob("*.deb")):
        _said(["dpkg-deb", "--extract", str(package), str(unpacked)])
    unpacked.rename(root)


def _unpack_wheels(python: str, site: Path) -> None:
    """Download the wheels that this environment has, for Arm and that version of Python, and unpack them."""
    downloaded, unpacked = site.with_name("wheels"), site.with_name("unpacked-wheels")
    platforms = [word for glibc in GLIBC for word in ("--platform", f"{glibc}_aarch64")]
    wanted = [f"{name}=={version(name)}" for name in WHEELS]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"]
    _said([*pip, str(downloaded), "--python-version", python, "--implementation", "cp", *platforms, *wanted])
    for wheel in downloaded.glob("*.whl"):
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(unpacked)
    unpacked.rename(site)


def _said(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{Path(command[0]).name} failed: {last_line(done.stderr)}")
    return done.stdout
