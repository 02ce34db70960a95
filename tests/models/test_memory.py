"""Memory that is kept between uses, and given back."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from models.memory import give_back, held

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


def faults_of_a_large_block() -> int:
    """Return how many pages the system had to clear for a block of 64 MB that is written once and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(64 << 20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_a_large_block_is_used_again_while_memory_is_held() -> None:
    usual = faults_of_a_large_block()
    assert usual > 0
    with held():
        faults_of_a_large_block()
        assert faults_of_a_large_block() < usual / 10
        give_back()
        assert faults_of_a_large_block() > usual / 2


def test_afterwards_large_blocks_go_back_at_once() -> None:
    usual = faults_of_a_large_block()
    with held():
        faults_of_a_large_block()
    give_back()
    faults_of_a_large_block()
    assert faults_of_a_large_block() > usual / 2
