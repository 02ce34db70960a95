"""Norms in a changed student, fitted to what they wrote in the unchanged one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from models.checkpoint import Checkpoint
from models.encoded import Batch
from models.kinds import Norm
from models.layers.norm import ElementwiseNorm

Instead = Callable[[str, Tensor, Tensor], Tensor]  # (norm's path, what it reads, what it writes) -> to write instead


def with_elementwise_norms(student: Checkpoint, batch: Batch) -> Checkpoint:
    """Return the student with x * weight + bias (MobileBERT's NoNorm, Sun et al. 2020, section 3.2) for every norm.

    Weight and bias of a channel are the least-squares ones over the tokens of `batch`: weight = cov(x, y) / var(x) and
    bias = mean(y) - weight * mean(x), with y what the norm wrote in the student as it was given, and x what it reads
    once all norms before it are replaced. Norms are fitted in the order in which they run, so that each also makes up
    for what those before it are off by. A channel that reads one and the same number writes the mean of y.
    """
    fitted: dict[str, Tensor] = {}
    wanted = _written(student, batch)

    def line(path: str, read: Tensor, written: Tensor) -> Tensor:
        weight, bias = fitted_line(_of_tokens(read, batch.mask), wanted[path])
        fitted[f"{path}.weight"], fitted[f"{path}.bias"] = weight, bias
        return read * weight + bias

    _run(student, batch, line)
    return replace(student, shape=replace(student.shape, norm=Norm.ELEMENTWISE), weights={**student.weights, **fitted})


def refitted_norms(
    narrow: Checkpoint, whole: Checkpoint, batch: Batch, *, stream: Sequence[int], head: Mapping[str, Sequence[int]]
) -> Checkpoint:
    """Return a narrowed student whose norms write on the tokens of `batch` what comes nearest to what they write in the
    student that it was narrowed from: norms of fewer channels take other means and other lengths.

    `stream` and `head` are the channels of `whole` that are left of the residual stream, and of layers of the head.
    What a norm writes is scaled and shifted by the least-squares line of each channel, in the order in which norms run;
    one without a bias is left as it is.
    """
    fitted: dict[str, Tensor] = {}
    wanted = _written(whole, batch)
    for path, values in wanted.items():
        if len(narrow.weights[f"{path}.weight"]) != values.shape[1]:
            wanted[path] = values[:, list(head["head.dense"] if path.startswith("head.") else stream)]

    def line(path: str, read: Tensor, written: Tensor) -> Tensor:
        if f"{path}.bias" not in narrow.weights:
            return written
        slope, height = fitted_line(_of_tokens(written, batch.mask), wanted[path])
        fitted[f"{path}.weight"] = narrow.weights[f"{path}.weight"] * slope
        fitted[f"{path}.bias"] = narrow.weights[f"{path}.bias"] * slope + height
        return written * slope + height

    _run(narrow, batch, line)
    return replace(narrow, weights={**narrow.weights, **fitted})


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


def _written(student: Checkpoint, batch: Batch) -> dict[str, Tensor]:
    """Return what each norm writes, (tokens, width) without padding."""
    found: dict[str, Tensor] = {}

    def keep(path: str, read: Tensor, written: Tensor) -> Tensor:
        found[path] = _of_tokens(written, batch.mask)
        return written

    _run(student, batch, keep)
    return found


def _of_tokens(values: Tensor, mask: Tensor) -> Tensor:
    """Return values (batch, time, width) as (tokens, width) without padding; those of a head, (batch, width), as they
    are.
    """
    return values[mask] if values.ndim == 3 else values


def _run(student: Checkpoint, batch: Batch, instead: Instead) -> None:
    """Run the student on every token in every layer, with what `instead` returns in place of what its norms write."""
    network = student.network()
    for path, module in network.named_modules():
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm, ElementwiseNorm)):
            module.register_forward_hook(partial(_hook, path, instead))
    with torch.no_grad():
        network.features(**batch.inputs)


def _hook(path: str, instead: Instead, module: nn.Module, given: tuple[Tensor, ...], written: Tensor) -> Tensor:
    return instead(path, given[0], written)
