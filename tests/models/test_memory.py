"""Memory that is kept between uses, and given back."""

from __future__ import annotations

import platform
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from models.memory import give_back, held

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


def faults_of_a_large_block(megabytes: int = 64) -> int:
    """Return how many pages the system had to clear for a block that is written once and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(megabytes << 20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def faults_while_held() -> list[int]:
    """Return the faults of three blocks: as usual, of one while memory is held that a larger one left, and of one after
    it was given back.

    The larger one, as a block whose place is aligned takes a little more than its size: once something small
    has come to lie behind it, the next of equal size does not fit there.
    """
    usual = faults_of_a_large_block()
    with held():
        faults_of_a_large_block(megabytes=80)
        again = faults_of_a_large_block()
        give_back()
        return [usual, again, faults_of_a_large_block()]


def faults_afterwards() -> list[int]:
    """Return the faults of two blocks: as usual, and the second after memory was held and returned."""
    usual = faults_of_a_large_block()
    with held():
        faults_of_a_large_block()
    give_back()
    faults_of_a_large_block()
    return [usual, faults_of_a_large_block()]


def in_a_new_process(count: Callable[[], list[int]]) -> list[int]:
    """Return what a process counts that has not yet asked for anything else.

    Once a single request fails for want of memory, glibc serves that thread from another of its heaps to the end of
    the process, and there it maps every large block anew, whatever the options say.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        return processes.submit(count).result()


def test_a_large_block_is_used_again_while_memory_is_held() -> None:
    usual, again, given_back = in_a_new_process(faults_while_held)
    assert usual > 0
    assert again < usual / 10
    assert given_back > usual / 2


def test_afterwards_large_blocks_go_back_at_once() -> None:
    usual, later = in_a_new_process(faults_afterwards)
    assert later > usual / 2
