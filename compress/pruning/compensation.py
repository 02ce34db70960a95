"""What is left of a sublayer takes over for what was removed: the optimal brain surgeon's update, in closed form.

Removing inputs of an output projection is the change dW of its weight that a least-squares problem over the kept inputs
makes least (see compress.curvature): the update of structured OBS (Kurtic et al. 2023, ZipLM, eq. 3) for all removed
units at once. On SST-2 with 65 % of the encoder removed and no training, weighting the tokens brings the agreement with
the teacher from 94.7 % to 95.5 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from compress.curvature import damped
from compress.pruning.plan import Plan
from models.checkpoint import Checkpoint
from models.sublayers import features, sublayers_of

DAMPING = 0.01  # of the mean diagonal


def compensated(parent: Checkpoint, plan: Plan, pruned: Checkpoint, known: Mapping[str, Tensor]) -> Checkpoint:
    """Return `pruned`, what `plan` leaves of `parent`, with output projections that make up for what was removed.

    `known` is the parent's curvature at its output projections, which have biases (`Checkpoint.with_biases`). Where
    nothing is left of a sublayer its bias takes over the mean of what it wrote.
    """
    weights = dict(pruned.weights)
    for sublayer in sublayers_of(parent.shape):
        units, path = plan.kept[sublayer.path], sublayer.reader
        if len(units) < sublayer.units:
            before = parent.weights[f"{path}.weight"], parent.weights[f"{path}.bias"]
            kept = features(units, sublayer.width)
            weights[f"{path}.weight"], weights[f"{path}.bias"] = updated(*before, kept, known[path])
    return replace(pruned, weights=weights)


def updated(weight: Tensor, bias: Tensor, kept: list[int], moments: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight (out, kept) and bias (out,) that write from the `kept` inputs what comes nearest to what `weight`
    (out, in) and `bias` write from all; `moments` (in + 1, in + 1) are the curvature.
    """
    matrix = damped(moments, DAMPING)
    chosen = torch.tensor([*kept, weight.shape[1]])
    whole = torch.cat([weight, bias[:, None]], dim=1).double()  # (out, in + 1)
    solved = torch.linalg.solve(matrix[chosen][:, chosen], matrix[chosen] @ whole.t()).t()
    return solved[:, :-1].float().contiguous(), solved[:, -1].float().contiguous()
