"""Norms in a changed student, fitted to what they wrote in the unchanged one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from models.checkpoint import Checkpoint
from models.encoded import Batch
from models.layers.norm import ElementwiseNorm
from models.shape import Norm
from teacher_student.losses import of_tokens

Written = Callable[[str, Tensor, Tensor], Tensor]  # (norm's path, what it reads, what it writes) -> to write instead
Line = Callable[[str, Tensor, Tensor, Tensor], Tensor]  # the same, with what is wanted of its tokens


def with_elementwise_norms(student: Checkpoint, batch: Batch) -> Checkpoint:
    """Return the student with x * weight + bias (MobileBERT's NoNorm, Sun et al. 2020, section 3.2) for every norm.

    Weight and bias of a channel are the least-squares ones over the tokens of `batch`: weight = cov(x, y) / var(x) and
    bias = mean(y) - weight * mean(x), with y what the norm wrote in the student as it was given, and x what it reads
    once all norms before it are replaced. Norms are fitted in the order in which they run, so that each also makes up
    for what those before it are off by. A channel that reads one and the same number writes the mean of y.
    """
    fitted: dict[str, Tensor] = {}

    def line(path: str, read: Tensor, written: Tensor, wanted: Tensor) -> Tensor:
        weight, bias = fitted_line(of_tokens(read, batch.mask), wanted)
        fitted[f"{path}.weight"], fitted[f"{path}.bias"] = weight, bias
        return read * weight + bias

    _replace(student, _written(student, batch), batch, line)
    return Checkpoint(replace(student.shape, norm=Norm.ELEMENTWISE), {**student.weights, **fitted}, student.reader)


def refitted_norms(
    narrow: Checkpoint, whole: Checkpoint, batch: Batch, *, stream: Sequence[int], dense: Sequence[int]
) -> Checkpoint:
    """Return a narrowed student whose norms write on the tokens of `batch` what comes nearest to what they write in the
    student that it was narrowed from: norms of fewer channels take other means and other lengths.

    `stream` and `dense` are the channels of `whole` that are left of the residual stream, and in the head. What a norm
    writes is scaled and shifted by the least-squares line of each channel, in the order in which norms run; one without
    a bias is left as it is.
    """
    fitted: dict[str, Tensor] = {}
    wanted = _written(whole, batch)
    for path, values in wanted.items():
        if narrow.weights[f"{path}.weight"].shape != whole.weights[f"{path}.weight"].shape:
            wanted[path] = values[:, list(dense if path.startswith("head.") else stream)]

    def line(path: str, read: Tensor, written: Tensor, wanted: Tensor) -> Tensor:
        if f"{path}.bias" not in narrow.weights:
            return written
        slope, height = fitted_line(of_tokens(written, batch.mask), wanted)
        fitted[f"{path}.weight"] = narrow.weights[f"{path}.weight"] * slope
        fitted[f"{path}.bias"] = narrow.weights[f"{path}.bias"] * slope + height
        return written * slope + height

    _replace(narrow, wanted, batch, line)
    return Checkpoint(narrow.shape, {**narrow.weights, **fitted}, narrow.reader)


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
        found[path] = of_tokens(written, batch.mask)
        return written

    _run(student, batch, keep)
    return found


def _replace(student: Checkpoint, wanted: Mapping[str, Tensor], batch: Batch, line: Line) -> None:
    """Let `line` give what each norm writes, one after another."""
    _run(student, batch, lambda path, read, written: line(path, read, written, wanted[path]))


def _run(student: Checkpoint, batch: Batch, written: Written) -> None:
    """Run the student on every token in every layer, with what `written` returns in place of what its norms write."""
    network = student.network()
    for path, module in network.named_modules():
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm, ElementwiseNorm)):
            module.register_forward_hook(partial(_hook, path, written))
    with torch.no_grad():
        network.features(**batch.inputs)


def _hook(path: str, written: Written, module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return written(path, given[0], output)
