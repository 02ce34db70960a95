"""How much a network would lose without each head, FFN neuron or channel: gradients on masks that are all ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.checkpoint import Checkpoint
from models.encoded import Batch, Encoded
from models.errors import BadInput
from models.evaluation import unpadded_batches
from models.memory import give_back
from models.network import Network
from models.progress import Progress, silent
from models.task import Task

Values = npt.NDArray[np.float64]
TOKENS_PER_BATCH = 2048  # activations of every layer are kept for the gradient
Target = Callable[[Tensor, Batch], Tensor]


class Criterion(str, Enum):
    """What a score is made of the gradients g on a mask, one per example.

    FISHER: sum of g^2, the second-order loss of removing the unit (Kwon et al. 2022, eq. 9). TAYLOR: sum of |g|, the
    first-order one (Molchanov et al. 2017).
    """

    FISHER = "fisher"
    TAYLOR = "taylor"


@final
@dataclass(frozen=True, eq=False)
class Scores:
    """Importance of every unit, per layer: `heads[l]` (heads,) and `neurons[l]` (ffn,), not negative."""

    heads: tuple[Values, ...]
    neurons: tuple[Values, ...]


class _Sublayer(NamedTuple):
    """A place where a mask stands: before `module`, on `units` groups of equally many features each."""

    module: nn.Module
    units: int


def score_units(
    checkpoint: Checkpoint,
    data: Encoded,
    task: Task,
    *,
    examples: int,
    seed: int,
    criterion: Criterion = Criterion.FISHER,
    progress: Progress = silent,
) -> Scores:
    """Return the scores of all heads and neurons on up to `examples` rows of `data`, drawn from `seed`.

    The loss is the task's own where all these rows are labelled. Without labels it is the squared distance of the
    logits to the model's own, whose Fisher is estimated with one random projection of the logits per example
    (Hutchinson 1989); it is the second-order loss of any logit distillation, and needs no residual to be informative.

    Raises:
        BadInput: a quantized model, a model without a head, or no rows.
    """
    rows, target = _prepared(checkpoint, data, task, examples=examples, seed=seed)
    network = checkpoint.network()
    places = list(_sublayers(network))
    totals = [np.zeros(place.units) for place in places]
    with _recorded(places) as inputs:
        for batch in _batches(data, rows, progress("score heads and neurons")):
            for total, gradient in zip(totals, _mask_gradients(network, batch, target, places, inputs), strict=True):
                total += (gradient.square() if criterion is Criterion.FISHER else gradient.abs()).sum(dim=0).numpy()
    give_back()
    return Scores(tuple(totals[0::2]), tuple(totals[1::2]))


def score_channels(
    checkpoint: Checkpoint, data: Encoded, task: Task, *, examples: int, seed: int, progress: Progress = silent
) -> Values:
    """Return the Fisher scores (hidden,) of the residual stream's channels, on rows and with a loss as `score_units`.

    A channel's mask stands wherever the stream is read: behind the embeddings and behind every norm or, where norms
    come before, behind everything that is added to the stream. An example's gradient is the sum over these places.

    Raises:
        BadInput: a quantized model, a model without a head, or no rows.
    """
    rows, target = _prepared(checkpoint, data, task, examples=examples, seed=seed)
    network = checkpoint.network()
    names = ("attention.output", "ffn.down") if checkpoint.shape.pre_norm else ("attention_norm", "ffn_norm")
    layers = range(len(checkpoint.shape.layers))
    modules = [network.embeddings, *(network.get_submodule(f"layers.{k}.{name}") for k in layers for name in names)]
    total = np.zeros(checkpoint.shape.hidden_size)
    seen: list[Tensor] = []
    hooks = [one.register_forward_hook(lambda module, given, written: seen.append(written)) for one in modules]
    try:
        for batch in _batches(data, rows, progress("score channels")):
            seen.clear()
            loss = target(network(**batch.inputs), batch)
            gradients = torch.autograd.grad(loss, seen)
            each = [(one.detach() * own).double().sum(dim=1) for one, own in zip(seen, gradients, strict=True)]
            total += torch.stack(each).sum(dim=0).square().sum(dim=0).numpy()
    finally:
        for hook in hooks:
            hook.remove()
    give_back()
    return total


def _prepared(
    checkpoint: Checkpoint, data: Encoded, task: Task, *, examples: int, seed: int
) -> tuple[npt.NDArray[np.int64], Target]:
    """Return the rows that are scored on, and the loss: the task's own, or random projections of the logits where one
    of these rows has no label.

    Raises:
        BadInput: a quantized model, a model without a head, or no rows.
    """
    if checkpoint.shape.int8 or checkpoint.shape.head is None or len(data) == 0:
        raise BadInput("only a float classifier with examples can be scored", where="prune", fix="Quantize last.")
    rows = np.sort(np.random.default_rng(seed).permutation(len(data))[:examples])
    if bool(data.labelled[rows].all()):
        return rows, _task_loss(task)
    return rows, _projected_logits(torch.Generator().manual_seed(seed))


def _batches(data: Encoded, rows: npt.NDArray[np.int64], tick: Callable[[int, int], None]) -> Iterator[Batch]:
    """Yield these rows in batches of one length."""
    done = 0
    for chosen in unpadded_batches(data.lengths[rows], batch_tokens=TOKENS_PER_BATCH):
        yield data.batch(rows[chosen])
        done += len(chosen)
        tick(done, len(rows))


def _sublayers(network: Network) -> Iterator[_Sublayer]:
    """Yield the two places of every layer: heads before attention's output, neurons before the FFN's."""
    for index, layer in enumerate(network.shape.layers):
        yield _Sublayer(network.get_submodule(f"layers.{index}.attention.output"), layer.heads)
        yield _Sublayer(network.get_submodule(f"layers.{index}.ffn.down"), layer.ffn)


@contextmanager
def _recorded(places: list[_Sublayer]) -> Iterator[dict[nn.Module, Tensor]]:
    """Yield a table that every forward pass fills with what the modules read."""
    inputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        inputs[module] = given[0]

    hooks = [place.module.register_forward_pre_hook(keep) for place in places]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()


def _mask_gradients(
    network: Network, batch: Batch, target: Target, places: list[_Sublayer], inputs: dict[nn.Module, Tensor]
) -> list[Tensor]:
    """Return the gradient on every mask for every example, each (batch, units), in double precision."""
    inputs.clear()
    loss = target(network(**batch.inputs), batch)
    read = [inputs[place.module] for place in places if place.module in inputs]
    gradients = dict(zip((id(one) for one in read), torch.autograd.grad(loss, read), strict=True))
    result = []
    for place in places:
        seen = inputs.get(place.module)
        if seen is None:  # nothing is left of this sublayer
            result.append(torch.zeros(len(batch.targets), place.units, dtype=torch.float64))
            continue
        product = (seen.detach() * gradients[id(seen)]).double().sum(dim=1)  # (batch, features)
        result.append(product.reshape(len(product), place.units, -1).sum(dim=2))
    return result


def _task_loss(task: Task) -> Target:
    """Return the task's loss summed over the batch, so that every example's gradient is its own."""

    def target(logits: Tensor, batch: Batch) -> Tensor:
        each = batch.targets.flatten(0, 1) if logits.ndim == 3 else batch.targets
        return task.loss(logits.flatten(0, -2), each)

    return target


def _projected_logits(generator: torch.Generator) -> Target:
    """Return v . logits with v drawn from N(0, I) per example."""

    def target(logits: Tensor, batch: Batch) -> Tensor:
        return (logits * torch.randn(logits.shape, generator=generator)).sum()

    return target
