"""What every test gets: one thread, and property tests that draw the same examples each time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import settings
from support.real import SHARED, TEACHER

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


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
