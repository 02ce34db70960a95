"""How much a network would lose without each head, FFN neuron or channel: gradients on masks that are all ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from compress.curvature import gradient_batches, projected
from compress.recording import Recorded, recorded
from models.checkpoint import Checkpoint
from models.encoded import Batch, Encoded
from models.errors import BadInput
from models.memory import give_back
from models.network import Network
from models.progress import Progress, silent
from models.shape import ModelShape
from models.sublayers import sublayers_of
from models.task import Task

Values = npt.NDArray[np.float64]
Scores = Mapping[str, Values]  # importance of every unit of a sublayer, by its path, not negative
Target = Callable[[Tensor, Batch], Tensor]


class Criterion(str, Enum):
    """What a score is made of the gradients g on a mask, one per example.

    FISHER: sum of g^2, the second-order loss of removing the unit (Kwon et al. 2022, eq. 9). TAYLOR: sum of |g|, the
    first-order one (Molchanov et al. 2017).
    """

    FISHER = "fisher"
    TAYLOR = "taylor"


class _Masked(NamedTuple):
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
        BadInput: a quantized model, a model that neither answers nor writes, or no rows.
    """
    data, target = _prepared(checkpoint, data, task, examples=examples, seed=seed)
    network = checkpoint.network()
    sublayers = sublayers_of(checkpoint.shape)
    places = [_Masked(network.get_submodule(one.reader), one.units) for one in sublayers]
    totals = [np.zeros(place.units) for place in places]
    with recorded([place.module for place in places]) as seen:
        for batch in _batches(data, checkpoint.shape, progress("score heads and neurons")):
            gradients = _mask_gradients(network, batch, target, places, seen)
            for total, gradient in zip(totals, gradients, strict=True):
                total += (gradient.square() if criterion is Criterion.FISHER else gradient.abs()).sum(dim=0).numpy()
    give_back()
    return {sublayer.path: total for sublayer, total in zip(sublayers, totals, strict=True)}


def score_channels(
    checkpoint: Checkpoint, data: Encoded, task: Task, *, examples: int, seed: int, progress: Progress = silent
) -> Values:
    """Return the Fisher scores (hidden,) of the residual stream's channels, on rows and with a loss as `score_units`.

    The mask of a channel, one for each example, is on all that writes the stream: embeddings, and norms or, where norms
    come before, what sublayers add.

    Raises:
        BadInput: a quantized model, a model that neither answers nor writes, or no rows.
    """
    data, target = _prepared(checkpoint, data, task, examples=examples, seed=seed)
    network, width = checkpoint.network(), checkpoint.shape.hidden_size
    total, mask = np.zeros(width), torch.ones(0)
    for module in _stream_writers(network):
        module.register_forward_hook(lambda module, given, written: written * mask)
    for batch in _batches(data, checkpoint.shape, progress("score channels")):
        mask = torch.ones(len(batch.indices), 1, width, requires_grad=True)
        (gradient,) = torch.autograd.grad(target(network(**batch.inputs), batch), mask)
        total += gradient.double().square().sum(dim=(0, 1)).numpy()
    give_back()
    return total


def _prepared(checkpoint: Checkpoint, data: Encoded, task: Task, *, examples: int, seed: int) -> tuple[Encoded, Target]:
    """Return the rows that are scored on, and the loss: the task's own, or random projections of the logits where one
    of these rows has no label.

    Raises:
        BadInput: a quantized model, a model that neither answers nor writes, or no rows.
    """
    shape = checkpoint.shape
    if shape.int8 or (shape.head is None and shape.output is None) or len(data) == 0:
        raise BadInput("only a float model with examples can be scored", where="prune", fix="Quantize last.")
    data = data.drawn(examples, seed=seed)
    if data.labelled.all():
        return data, _task_loss(task, by_token=shape.answers_tokens)
    return data, _projected_logits(torch.Generator().manual_seed(seed), words=shape.output is not None)


def _batches(data: Encoded, shape: ModelShape, tick: Callable[[int, int], None]) -> Iterator[Batch]:
    """Yield all rows, in batches of one length."""
    done = 0
    for rows in gradient_batches(data, shape):
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


def _mask_gradients(
    network: Network, batch: Batch, target: Target, places: list[_Masked], seen: Recorded
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


def _projected_logits(generator: torch.Generator, *, words: bool) -> Target:
    """Return the projection of the logits on a random direction per example."""

    def target(logits: Tensor, batch: Batch) -> Tensor:
        return projected(logits, generator, words=words)

    return target
