"""What each module alone costs in int8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from compress.quantization.schemes import Range, quantize
from models.checkpoint import Checkpoint
from models.encoded import Encoded
from models.evaluation import evaluate_logits
from models.network import Network
from models.progress import Progress, silent
from models.shape import Int8Form
from models.task import Task

Logits = npt.NDArray[np.float32]


class Cost(NamedTuple):
    """What one module in int8 costs while all others stay in float.

    `divergence` is the mean KL divergence of the answers from the float model's, in nats; `changed` the share of
    examples whose top label changes; `loss_points` the loss of the task's metric in points (negative is a gain).
    """

    name: str
    form: str
    weights: int
    divergence: float
    changed: float
    loss_points: float | None


def sensitivity(
    checkpoint: Checkpoint,
    forms: Mapping[str, Int8Form],
    data: Encoded,
    task: Task,
    *,
    ranges: Mapping[str, Range] | None = None,
    progress: Progress = silent,
) -> list[Cost]:
    """Return the cost of every module of `forms`, the most expensive first."""
    network = checkpoint.network()
    targets = np.asarray(data.targets)
    labelled = bool((targets >= 0).all())
    reference = evaluate_logits(network, data)
    report = progress("sensitivity")
    costs = []
    for number, (path, form) in enumerate(forms.items(), start=1):
        logits = _with_one(network, checkpoint, path, form, ranges, data)
        change = task.score(logits, targets).mean() - task.score(reference, targets).mean() if labelled else None
        sign = -1.0 if task.metric.higher_is_better else 1.0
        costs.append(
            Cost(
                name=path,
                form=form.value,
                weights=int(checkpoint.weights[f"{path}.weight"].numel()),
                divergence=_divergence(reference, logits),
                changed=float((task.predict(logits) != task.predict(reference)).mean()),
                loss_points=None if change is None else round(float(sign * change * 100), 4),
            )
        )
        report(number, len(forms))
    return sorted(costs, key=lambda cost: -cost.divergence)


def _with_one(
    network: Network,
    checkpoint: Checkpoint,
    path: str,
    form: Int8Form,
    ranges: Mapping[str, Range] | None,
    data: Encoded,
) -> Logits:
    """Return the logits with one module of `network` in int8; the network is given back as it was."""
    original: nn.Module = network.get_submodule(path)
    one = quantize(checkpoint, {path: form}, ranges).network()
    network.set_submodule(path, one.get_submodule(path), strict=True)
    try:
        return evaluate_logits(network, data)
    finally:
        network.set_submodule(path, original, strict=True)


def _divergence(reference: Logits, logits: Logits) -> float:
    """Return the mean KL(reference || logits) of the softmax distributions."""
    expected, found = (torch.log_softmax(torch.from_numpy(part).double(), dim=1) for part in (reference, logits))
    return float((expected.exp() * (expected - found)).sum(dim=1).mean())
