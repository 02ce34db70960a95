"""What each module alone costs in int8, everything else in float."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.block import Block
from models.checkpoint import Checkpoint
from models.encoded import Encoded
from models.evaluation import answer_offsets, place_answers, unpadded_batches
from models.network import Network
from models.progress import Progress, silent
from models.shape import EVERY_TOKEN
from models.summary import contributions
from models.task import Task

TOKENS_PER_BATCH: Final = 4096
WORK: Final = 5e11  # multiply-adds that a table may take: about 20 s on two idle cores


@final
@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What a module alone in its form changes.

    `kl` is the mean divergence of the answers from the float model's, as the task has it; `mse` the mean squared change
    of the logits; `score_change` that of the task's metric, None where rows have no label.
    """

    name: str
    kl: float
    mse: float
    score_change: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the row as a JSON object."""
        return asdict(self)


def sensitivities(
    checkpoint: Checkpoint, quantized: Checkpoint, data: Encoded, task: Task, *, progress: Progress = silent
) -> tuple[Sensitivity, ...]:
    """Return what each module of `quantized` costs in the float `checkpoint`, on all rows of `data`.

    The most sensitive comes first.

    Within a batch the float model runs once, and each module only from its own layer on.
    """
    network = checkpoint.network()
    paths = list(quantized.shape.int8_forms)
    rounded = quantized.network()
    modules = {path: rounded.get_submodule(path) for path in paths}
    kl, mse = (dict.fromkeys(paths, 0.0) for _ in range(2))
    starts = answer_offsets(data, checkpoint.shape)
    exact = np.zeros((int(starts[-1]), checkpoint.shape.outputs), dtype=np.float32)
    answers = {path: np.zeros_like(exact) for path in paths}
    tick, done = progress("sensitivity"), 0
    with torch.inference_mode():
        for rows in unpadded_batches(data.lengths, batch_tokens=TOKENS_PER_BATCH):
            inputs = data.batch(rows).inputs
            states = _states(network, inputs)
            truth = states[-1].flatten(0, -2)
            place_answers(exact, states[-1].numpy(), rows, starts)
            for path, module in modules.items():
                with _swapped(network, path, module):
                    logits = _from_layer(network, path, states, inputs)
                place_answers(answers[path], logits.numpy(), rows, starts)
                flat = logits.flatten(0, -2)
                kl[path] += float(task.divergence(flat, truth, temperature=1.0))
                mse[path] += float((flat - truth).square().mean(dim=1).sum())
            done += len(rows)
            tick(done, len(data))
    count = max(1, len(exact))
    labelled = len(data) > 0 and bool(data.labelled.all())
    right = _score(task, exact, data, checkpoint.shape.labels) if labelled else 0.0
    names = checkpoint.shape.labels
    found = [
        Sensitivity(
            path,
            kl[path] / count,
            mse[path] / count,
            _score(task, answers[path], data, names) - right if labelled else None,
        )
        for path in paths
    ]
    return tuple(sorted(found, key=lambda one: (-one.kl, one.name)))


def affordable(checkpoint: Checkpoint, modules: int, data: Encoded) -> int:
    """Return how many rows of `data` the sensitivities of so many modules may be measured on.

    Each module runs half of the network on average. The number depends on sizes alone, so that it is the same on every
    machine; at least one row is always affordable.
    """
    weights = sum(value.numel() for name, value in checkpoint.weights.items() if not name.startswith("embeddings."))
    per_row = max(1.0, float(data.lengths.mean())) * weights * max(1, modules) / 2 if len(data) else 1.0
    return min(len(data), max(1, int(WORK / per_row)))


def _score(task: Task, logits: npt.NDArray[np.float32], data: Encoded, labels: tuple[str, ...]) -> float:
    return float(contributions(task.metric.summary, task.statistics(logits, data, labels)).mean())


@contextmanager
def _swapped(network: Network, path: str, module: nn.Module) -> Iterator[None]:
    original = network.get_submodule(path)
    network.set_submodule(path, module, strict=True)
    try:
        yield
    finally:
        network.set_submodule(path, original, strict=True)


def _states(network: Network, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the input of every layer, the input of the head, and the logits."""
    states = [network.embed(**inputs)]
    for index in range(len(network.layers)):
        states.append(_layer(network, index, states[-1]))
    return [*states, _answer(network, states[-1])]


def _from_layer(network: Network, path: str, states: list[Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the logits, computed from the place of `path` on: before it nothing has changed."""
    part, _, rest = path.partition(".")
    if part == "embeddings":
        start, hidden = 0, network.embed(**inputs)
    else:
        start = int(rest.partition(".")[0]) if part == "layers" else len(network.layers)
        hidden = states[start]
    for index in range(start, len(network.layers)):
        hidden = _layer(network, index, hidden)
    return _answer(network, hidden)


def _layer(network: Network, index: int, hidden: Tensor) -> Tensor:
    block = network.layers[index]
    assert isinstance(block, Block)
    last = index == len(network.layers) - 1
    return block(hidden, None, readers=network.shape.readers if last else EVERY_TOKEN)  # type: ignore[no-any-return]


def _answer(network: Network, hidden: Tensor) -> Tensor:
    normed = hidden if network.final_norm is None else network.final_norm(hidden)
    assert network.head is not None
    return network.head(normed)  # type: ignore[no-any-return]
