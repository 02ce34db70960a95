"""How much a network would lose without each head, FFN neuron or channel: gradients on masks that are all ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from compress.curvature import projected
from compress.recording import Recorded, recorded
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
    data, target = _prepared(checkpoint, data, task, examples=examples, seed=seed)
    network = checkpoint.network()
    places = list(_sublayers(network))
    totals = [np.zeros(place.units) for place in places]
    with recorded([place.module for place in places]) as seen:
        for batch in _batches(data, progress("score heads and neurons")):
            gradients = _mask_gradients(network, batch, target, places, seen)
            for total, gradient in zip(totals, gradients, strict=True):
                total += (gradient.square() if criterion is Criterion.FISHER else gradient.abs()).sum(dim=0).numpy()
    give_back()
    return Scores(tuple(totals[0::2]), tuple(totals[1::2]))


def score_channels(
    checkpoint: Checkpoint, data: Encoded, task: Task, *, examples: int, seed: int, progress: Progress = silent
) -> Values:
    """Return the Fisher scores (hidden,) of the residual stream's channels, on rows and with a loss as `score_units`.

    The mask of a channel, one for each example, is on all that writes the stream: embeddings, and norms or, where norms
    come before, what sublayers add.

    Raises:
        BadInput: a quantized model, a model without a head, or no rows.
    """
    data, target = _prepared(checkpoint, data, task, examples=examples, seed=seed)
    network, width = checkpoint.network(), checkpoint.shape.hidden_size
    total, mask = np.zeros(width), torch.ones(0)
    for module in _stream_writers(network):
        module.register_forward_hook(lambda module, given, written: written * mask)
    for batch in _batches(data, progress("score channels")):
        mask = torch.ones(len(batch.indices), 1, width, requires_grad=True)
        (gradient,) = torch.autograd.grad(target(network(**batch.inputs), batch), mask)
        total += gradient.double().square().sum(dim=(0, 1)).numpy()
    give_back()
    return total


def _prepared(checkpoint: Checkpoint, data: Encoded, task: Task, *, examples: int, seed: int) -> tuple[Encoded, Target]:
    """Return the rows that are scored on, and the loss: the task's own, or random projections of the logits where one
    of these rows has no label.

    Raises:
        BadInput: a quantized model, a model without a head, or no rows.
    """
    if checkpoint.shape.int8 or checkpoint.shape.head is None or len(data) == 0:
        raise BadInput("only a float classifier with examples can be scored", where="prune", fix="Quantize last.")
    data = data.drawn(examples, seed=seed)
    if data.labelled.all():
        return data, _task_loss(task, by_token=checkpoint.shape.answers_tokens)
    return data, _projected_logits(torch.Generator().manual_seed(seed))


def _batches(data: Encoded, tick: Callable[[int, int], None]) -> Iterator[Batch]:
    """Yield all rows, in batches of one length."""
    done = 0
    for rows in unpadded_batches(data.lengths, batch_tokens=TOKENS_PER_BATCH, likeness=data.likeness):
        yield data.batch(rows)
        done += len(rows)
        tick(done, len(data))


def _stream_writers(network: Network) -> Iterator[nn.Module]:
    """Yield everything of which the residual stream is the output, or the sum."""
    yield network.embeddings
    names = ("attention", "ffn") if network.shape.pre_norm else ("attention_norm", "ffn_norm")
    for index, layer in enumerate(network.shape.layers):
        for name in ("places", *names) if layer.places else names:
            yield network.get_submodule(f"layers.{index}.{name}")


def _sublayers(network: Network) -> Iterator[_Sublayer]:
    """Yield the two places of every layer: heads before attention's output, neurons before the FFN's."""
    for index, layer in enumerate(network.shape.layers):
        yield _Sublayer(network.get_submodule(f"layers.{index}.attention.output"), layer.heads)
        yield _Sublayer(network.get_submodule(f"layers.{index}.ffn.down"), layer.ffn)


def _mask_gradients(
    network: Network, batch: Batch, target: Target, places: list[_Sublayer], seen: Recorded
) -> list[Tensor]:
    """Return the gradient on every mask for every example, each (batch, units), in double precision."""
    seen.clear()
    loss = target(network(**batch.inputs), batch)
    read = [seen[place.module][0] for place in places if place.module in seen]
    gradients = dict(zip((id(one) for one in read), torch.autograd.grad(loss, read), strict=True))
    result = []
    for place in places:
        if place.module not in seen:  # nothing is left of this sublayer
            result.append(torch.zeros(len(batch.targets), place.units, dtype=torch.float64))
            continue
        given = seen[place.module][0]
        product = (given.detach() * gradients[id(given)]).double().sum(dim=1)  # (batch, features)
        result.append(product.reshape(len(product), place.units, -1).sum(dim=2))
    return result


def _task_loss(task: Task, *, by_token: bool) -> Target:
    """Return the task's loss summed over the batch, so that every example's gradient is its own."""

    def target(logits: Tensor, batch: Batch) -> Tensor:
        each = batch.targets.flatten(0, 1) if by_token else batch.targets
        return task.loss(logits.flatten(0, -2), each)

    return target


def _projected_logits(generator: torch.Generator) -> Target:
    """Return the projection of the logits on a random direction per example."""

    def target(logits: Tensor, batch: Batch) -> Tensor:
        return projected(logits, generator)

    return target
