"""Norms that only scale and shift, in place of those that normalise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from models.checkpoint import Checkpoint
from models.encoded import Batch
from models.shape import Norm
from teacher_student.losses import of_tokens

Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]


def with_elementwise_norms(student: Checkpoint, batch: Batch) -> Checkpoint:
    """Return the student with x * weight + bias (MobileBERT's NoNorm, Sun et al. 2020, section 3.2) for every norm.

    Weight and bias of a channel are the least-squares ones over the tokens of `batch`: weight = cov(x, y) / var(x) and
    bias = mean(y) - weight * mean(x), with y what the norm wrote in the student as it was given, and x what it reads
    once all norms before it are replaced. Norms are fitted in the order in which they run, so that each also makes up
    for what those before it are off by. A channel that reads one and the same number writes the mean of y.
    """
    network = student.network()
    norms = {path: module for path, module in network.named_modules() if isinstance(module, (nn.LayerNorm, nn.RMSNorm))}
    wanted: dict[str, Tensor] = {}
    fitted: dict[str, Tensor] = {}

    def recorded(path: str) -> Hook:
        def hook(module: nn.Module, given: tuple[Tensor, ...], written: Tensor) -> None:
            wanted[path] = of_tokens(written, batch.mask)

        return hook

    def replaced(path: str) -> Hook:
        def hook(module: nn.Module, given: tuple[Tensor, ...], written: Tensor) -> Tensor:
            weight, bias = fitted_line(of_tokens(given[0], batch.mask), wanted[path])
            fitted[f"{path}.weight"], fitted[f"{path}.bias"] = weight, bias
            return given[0] * weight + bias

        return hook

    with torch.no_grad():
        for hooks in (recorded, replaced):
            with _hooked(norms, hooks):
                network.features(**batch.inputs)  # every token in every layer
    return Checkpoint(replace(student.shape, norm=Norm.ELEMENTWISE), {**student.weights, **fitted}, student.reader)


def fitted_line(read: Tensor, written: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight and bias (width,) of the least-squares line of each channel from `read` to `written`, both (tokens,
    width).
    """
    read, written = read.double(), written.double()
    centred = read - read.mean(dim=0)
    spread = centred.square().sum(dim=0)
    weight = torch.where(spread > 0, (centred * written).sum(dim=0) / spread, 0.0)
    bias = written.mean(dim=0) - weight * read.mean(dim=0)
    return weight.float(), bias.float()


@contextmanager
def _hooked(modules: Mapping[str, nn.Module], make: Callable[[str], Hook]) -> Iterator[None]:
    handles = [module.register_forward_hook(make(path)) for path, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
