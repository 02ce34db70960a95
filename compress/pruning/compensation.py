"""What is left of a sublayer takes over for what was removed: the optimal brain surgeon's update, in closed form.

Removing inputs of an output projection changes what it writes by dy = dW x. To second order the answer then changes by
sum over tokens of (g . dy)^2, with g the gradient of the answer with respect to what is written. Factored as K-FAC does
(Martens and Grosse 2015) into |g|^2 x x^T, that is a least-squares problem over the kept inputs in which every token
counts as much as the answer depends on it: the update of structured OBS (Kurtic et al. 2023, ZipLM, eq. 3) for all
removed units at once. On SST-2 with 65 % of the encoder removed and no training, weighting the tokens brings the
agreement with the teacher from 94.7 % to 95.5 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from compress.pruning.plan import Plan
from models.checkpoint import Checkpoint
from models.encoded import Batch, Encoded
from models.evaluation import unpadded_batches
from models.memory import give_back
from models.network import Network
from models.progress import Progress, silent

TOKENS_PER_BATCH = 2048
DAMPING = 0.01  # of the mean diagonal: fewer tokens than features leave directions that were never seen


@final
@dataclass(frozen=True, eq=False)
class Curvature:
    """Second moments of what the output projections read, each token weighted, per layer, in double precision.

    `heads[l]` is (heads * head_size + 1) and `neurons[l]` (ffn + 1) wide and high: the last feature is the constant 1
    that the bias is multiplied with.
    """

    heads: tuple[Tensor, ...]
    neurons: tuple[Tensor, ...]


def curvature(
    checkpoint: Checkpoint, data: Encoded, *, examples: int, seed: int, progress: Progress = silent
) -> Curvature:
    """Return the curvature on up to `examples` rows of `data`, drawn from `seed`; labels are not read.

    A token's weight is |g|^2, with g the gradient of one random projection of the logits per example (Hutchinson 1989)
    with respect to what the projection writes for it.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(data))[:examples])
    generator = torch.Generator().manual_seed(seed)
    network = checkpoint.network()
    projections = list(_projections(network))
    totals = [torch.zeros(one.in_features + 1, one.in_features + 1, dtype=torch.float64) for one in projections]
    tick, done = progress("curvature"), 0
    for batch_rows in unpadded_batches(data.lengths[rows], batch_tokens=TOKENS_PER_BATCH):
        batch = data.batch(rows[batch_rows])
        for total, weighted in zip(totals, _weighted(network, batch, projections, generator), strict=True):
            total += (weighted.t() @ weighted).double()
        done += len(batch_rows)
        tick(done, len(rows))
    give_back()
    return Curvature(tuple(totals[0::2]), tuple(totals[1::2]))


def compensated(parent: Checkpoint, plan: Plan, pruned: Checkpoint, known: Curvature) -> Checkpoint:
    """Return `pruned`, what `plan` leaves of `parent`, with output projections that make up for what was removed.

    `known` is the parent's curvature. Where nothing is left of a sublayer its bias takes over the mean of what it
    wrote.
    """
    weights = dict(pruned.weights)
    for index, layer in enumerate(parent.shape.layers):
        heads = [head * layer.head_size + place for head in plan.heads[index] for place in range(layer.head_size)]
        for path, kept, moments in (
            (f"layers.{index}.attention.output", heads, known.heads[index]),
            (f"layers.{index}.ffn.down", list(plan.neurons[index]), known.neurons[index]),
        ):
            before = parent.weights[f"{path}.weight"], parent.weights[f"{path}.bias"]
            if len(kept) < before[0].shape[1]:
                weights[f"{path}.weight"], weights[f"{path}.bias"] = _update(*before, kept, moments)
    return Checkpoint(pruned.shape, weights, pruned.tokenizing)


def _update(weight: Tensor, bias: Tensor, kept: list[int], moments: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight (out, kept) and bias (out,) that write from the kept inputs what comes nearest to the whole."""
    features = weight.shape[1]
    damping = torch.zeros(features + 1, dtype=torch.float64)
    damping[:-1] = DAMPING * moments.diagonal()[:-1].mean()
    damped = moments + damping.clamp(min=torch.finfo(torch.float64).tiny).diag()
    chosen = torch.tensor([*kept, features])
    whole = torch.cat([weight, bias[:, None]], dim=1).double()  # (out, features + 1)
    solved = torch.linalg.solve(damped[chosen][:, chosen], damped[chosen] @ whole.t()).t()
    return solved[:, :-1].float().contiguous(), solved[:, -1].float().contiguous()


def _projections(network: Network) -> Iterator[nn.Linear]:
    """Yield the output projections of every layer: attention's, then the FFN's."""
    for index in range(len(network.layers)):
        for name in ("attention.output", "ffn.down"):
            module = network.get_submodule(f"layers.{index}.{name}")
            assert isinstance(module, nn.Linear)
            yield module


def _weighted(network: Network, batch: Batch, projections: list[nn.Linear], generator: torch.Generator) -> list[Tensor]:
    """Return what each projection reads for every token, with a 1 appended, times the token's |g|: (tokens, in + 1)."""
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def keep(module: nn.Module, given: tuple[Tensor, ...], written: Tensor) -> None:
        seen[module] = (given[0].detach(), written)

    hooks = [module.register_forward_hook(keep) for module in projections]
    try:
        logits = network(batch.input_ids, None, batch.token_type_ids)
    finally:
        for hook in hooks:
            hook.remove()
    drawn = torch.randn(logits.shape, generator=generator)
    target = (logits * (drawn - drawn.mean(dim=1, keepdim=True))).sum()  # softmax sees only differences
    live = [module for module in projections if module in seen]
    gradients = dict(zip(live, torch.autograd.grad(target, [seen[module][1] for module in live]), strict=True))
    result = []
    for module in projections:
        if module not in seen:  # nothing is left of this sublayer
            result.append(torch.zeros(0, module.in_features + 1))
            continue
        read = seen[module][0].flatten(0, -2)
        size = gradients[module].flatten(0, -2).norm(dim=1, keepdim=True)
        result.append(torch.cat([read, torch.ones_like(size)], dim=1) * size)
    return result
