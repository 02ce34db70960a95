"""What modules of a network read and write, as it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

Recorded = dict[nn.Module, tuple[Tensor, Tensor]]


@contextmanager
def recorded(modules: Sequence[nn.Module]) -> Iterator[Recorded]:
    """Yield a table that every forward pass fills with the first thing that each module read, and what it wrote.

    A module that did not run keeps what was there: whoever reads the table clears it.
    """
    seen: Recorded = {}

    def keep(module: nn.Module, given: tuple[Tensor, ...], written: Tensor) -> None:
        seen[module] = (given[0], written)

    hooks = [module.register_forward_hook(keep) for module in modules]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
