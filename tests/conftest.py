"""What every test gets: one thread, and property tests that draw the same examples each time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from support.bundles import tiny_bundle
from support.real import SHARED, TEACHER
from support.timing import time_by_size

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a folder be named where other libraries are installed, for the tests that load bundles with them."""
    parser.addoption("--peers", type=Path, metavar="FOLDER", help="where tests/ecosystem installs other libraries")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    """Before anything else, what a module's tests share too: on tiny models a second thread only waits."""
    torch.set_num_threads(1)


@pytest.fixture
def timed_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a model take as long as its file is large."""
    time_by_size(monkeypatch)


@pytest.fixture
def trained_teacher() -> Path:
    """Return the directory of the trained MiniLM, or skip."""
    if not (TEACHER / "config.json").exists():
        pytest.skip(f"the trained teacher is not at {TEACHER}")
    return TEACHER


@pytest.fixture
def sst2() -> Path:
    """Return the directory of the real SST-2 sentences, or skip."""
    directory = SHARED / "data" / "sst2"
    if not directory.exists():
        pytest.skip(f"the SST-2 sentences are not at {directory}")
    return directory


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bundle of a random classifier, which nobody may change."""
    return tiny_bundle(tmp_path_factory.mktemp("sealed") / "bundle").directory


@pytest.fixture
def bundle(tmp_path: Path, sealed: Path) -> Path:
    """Return a copy of it, for a test to harm."""
    return Path(shutil.copytree(sealed, tmp_path / "bundle"))
