"""How long, how fast and in which order a network is trained."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from models.encoded import length_buckets
from models.errors import BadInput
from models.kinds import Int8Form
from teacher_student.compute import Compute

SAVE_EVERY_S = 60.0

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything about a training run but the network, the data and the loss.

    `warmup` is the share of the steps in which the learning rate rises; it then falls linearly to 0. `token_budget`
    ends the run early, at the step that reaches so many tokens. In the last `int8_epochs` of the epochs linear layers
    round as dynamic int8 does; the word table is rounded as one of `words` in all of them. Weights whose names start
    with one of `frozen` are not trained.
    """

    epochs: float = 3.0
    batch_size: int = 32
    learning_rate: float = 1e-4
    warmup: float = 0.06
    weight_decay: float = 0.01
    clip: float = 1.0
    evaluations_per_epoch: int = 1
    token_budget: int | None = None
    int8_epochs: float = 0.0
    words: Int8Form | None = None
    frozen: tuple[str, ...] = ()
    save_every_s: float = SAVE_EVERY_S
    compute: Compute = field(default_factory=Compute.best)

    def __post_init__(self) -> None:
        wrong = [
            f"{name} is {value}"
            for name, value, good in (
                ("epochs", self.epochs, self.epochs > 0),
                ("batch_size", self.batch_size, self.batch_size >= 1),
                ("learning_rate", self.learning_rate, self.learning_rate > 0),
                ("warmup", self.warmup, 0 <= self.warmup <= 1),
                ("weight_decay", self.weight_decay, self.weight_decay >= 0),
                ("clip", self.clip, self.clip > 0),
                ("evaluations_per_epoch", self.evaluations_per_epoch, self.evaluations_per_epoch >= 1),
                ("int8_epochs", self.int8_epochs, 0 <= self.int8_epochs <= self.epochs),
                ("token_budget", self.token_budget, self.token_budget is None or self.token_budget > 0),
            )
            if not good
        ]
        if wrong:
            raise BadInput("; ".join(wrong), where="schedule")

    def to_json(self) -> dict[str, Any]:
        """Return what decides the trained weights, as a JSON object."""
        return {key: value for key, value in asdict(self).items() if key != "save_every_s"}

    def learning_rate_at(self, step: int, steps: int) -> float:
        """Return the learning rate of step `step` (from 0) out of `steps`."""
        warm = math.ceil(self.warmup * steps)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        return self.learning_rate * (steps - step) / (steps - warm)


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows of every step, the numbers of finished steps after which the network is evaluated, and the first step
    that rounds.
    """

    batches: tuple[Rows, ...]
    evaluations: frozenset[int]
    rounds_from: int

    @property
    def steps(self) -> int:
        """Return the number of steps."""
        return len(self.batches)


def make_plan(lengths: npt.NDArray[np.int64], schedule: Schedule, *, seed: int) -> Plan:
    """Return the batches of a run over rows of these lengths: bucketed by length, in an order of (seed, epoch) alone.

    Raises:
        BadInput: there is nothing to learn from.
    """
    if len(lengths) == 0:
        raise BadInput("there are no examples to train on", where="training data")
    batches: list[Rows] = []
    ends = [0]
    for epoch in range(math.ceil(schedule.epochs)):
        batches += length_buckets(lengths, batch_size=schedule.batch_size, seed=derived_seed(seed, epoch))
        ends.append(len(batches))
    last = math.floor(schedule.epochs)
    if last < schedule.epochs:
        ends[-1] = ends[-2] + max(1, round((ends[-1] - ends[-2]) * (schedule.epochs - last)))
    steps = ends[-1]
    if schedule.token_budget is not None:
        spent = np.cumsum([int(lengths[rows].sum()) for rows in batches[:steps]])
        steps = min(steps, int(np.searchsorted(spent, schedule.token_budget)) + 1)
    parts = schedule.evaluations_per_epoch
    points = {
        start + (end - start) * part // parts
        for start, end in zip(ends, ends[1:], strict=False)
        for part in range(1, parts + 1)
    }
    evaluations = frozenset({point for point in points if 0 < point < steps} | {steps})
    rounds_from = round(steps * (1 - schedule.int8_epochs / schedule.epochs))
    return Plan(tuple(batches[:steps]), evaluations, rounds_from)


def derived_seed(*numbers: int) -> int:
    """Return a 32-bit seed that depends on all the numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
