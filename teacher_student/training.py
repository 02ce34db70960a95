"""The one training loop: fine-tuning, distillation, recovery after pruning, and training with rounding."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from models.encoded import Batch, Encoded
from models.errors import BadInput
from models.files import digest_of, sha256_bytes
from models.layers.quantized import FakeQuantizedLinear
from models.memory import give_back, held
from models.network import Network
from models.progress import Progress, silent
from teacher_student.losses import Term
from teacher_student.processes import Processes
from teacher_student.schedule import Plan, Rows, Schedule, derived_seed, make_plan
from teacher_student.training_state import Store, optimizer_tensors, restore_optimizer
from teacher_student.word_gradient import WordGradient

GIVE_BACK_STEPS = 50  # keeps a process near 1.3 GB that grew by 150 MB every 100 steps, at no measurable cost
TABLES = tuple(f"{stack}embeddings.{kind}" for stack in ("", "decoder.") for kind in ("word", "position", "token_type"))


class Objective(Protocol):
    """What a network is trained for."""

    @property
    def learned(self) -> nn.Module:
        """Return weights of the objective's own, trained along and then thrown away."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return, as JSON values, what decides the loss: a run that was killed goes on only where this is the same."""

    def __call__(self, network: Network, batch: Batch) -> Mapping[str, Term]:
        """Return the named parts of the loss; the loss is the sum of weight * total / size."""


@dataclass(frozen=True, slots=True)
class Point:
    """An evaluation: after how many steps, the score (higher is better), and the mean losses since the last one."""

    step: int
    score: float | None
    losses: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class History:
    """What happened in a training run. `seconds` is the time in steps, evaluations left out."""

    points: tuple[Point, ...]
    best_step: int
    best_score: float | None
    examples: int
    tokens: int
    seconds: float

    @property
    def examples_per_second(self) -> float:
        """Return the training speed."""
        return self.examples / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the history as a JSON object."""
        return {**asdict(self), "examples_per_second": self.examples_per_second}


@dataclass
class _Course:
    """Where a run stands."""

    step: int = 0
    points: list[Point] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    since: int = 0
    best_step: int = 0
    best_score: float | None = None
    examples: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> _Course:
        points = [Point(**point) for point in value["points"]]
        return _Course(**{**value, "points": points})

    def means(self) -> dict[str, float]:
        return {name: total / self.since for name, total in self.sums.items()} if self.since else {}

    def history(self) -> History:
        return History(
            tuple(self.points), self.best_step, self.best_score, self.examples, self.tokens, round(self.seconds, 3)
        )


def fit(
    network: Network,
    *,
    objective: Objective,
    data: Encoded,
    schedule: Schedule,
    evaluate: Callable[[Network], float] | None,
    seed: int,
    scratch: Path,
    progress: Progress = silent,
) -> History:
    """Train `network` in place and leave it on the CPU, in evaluation mode, with its best weights.

    `evaluate` returns a score, higher is better, of the network in evaluation mode; the best-scored weights are kept
    (the last of equals), or the final ones without it. Where the last steps round, only weights of these steps count.
    Every `schedule.save_every_s` seconds the whole state is kept in `scratch`; called again with the same arguments
    after a kill, the run goes on there and ends with exactly the weights of an undisturbed one. Under `accelerate
    launch` every process takes its share of each batch; `scratch` must then be one directory that all of them see, and
    only the first writes.

    Raises:
        BadInput: no examples, nothing to train, or a loss that is no longer a number.
    """
    processes = Processes.join(schedule.compute)
    plan = make_plan(data.lengths, schedule, seed=seed, likeness=data.likeness)
    training = _Training(network, objective, data, schedule, plan, processes, seed)
    store = Store(scratch, training.fingerprint())
    training.restore(store)
    tick = progress("training")
    saved_at = time.monotonic()
    started_at = saved_at
    with held(), torch.random.fork_rng(devices=[processes.device] if processes.device.type == "cuda" else []):
        while training.course.step < plan.steps:
            training.step()
            if training.course.step in plan.evaluations:
                training.evaluate(evaluate)
            due = time.monotonic() - saved_at >= schedule.save_every_s
            ended = training.course.step == plan.steps and time.monotonic() - started_at >= schedule.save_every_s
            if processes.first and (due or ended):
                store.save(training.course.step, training.tensors(), asdict(training.course))
                saved_at = time.monotonic()
            if training.course.step % GIVE_BACK_STEPS == 0:
                give_back()
            tick(training.course.step, plan.steps)
    history = training.finish()
    give_back()
    return history


@final
class _Training:
    """A network, what it is trained for, and how far that is."""

    def __init__(
        self,
        network: Network,
        objective: Objective,
        data: Encoded,
        schedule: Schedule,
        plan: Plan,
        processes: Processes,
        seed: int,
    ) -> None:
        self.network = network.to(processes.device)
        self.objective = objective
        self.learned = objective.learned.to(processes.device)
        self.data, self.schedule, self.plan, self.processes, self.seed = data, schedule, plan, processes, seed
        self.lengths = data.lengths
        self.course = _Course()
        self.best: dict[str, Tensor] = {}
        self.named = _trained(network, self.learned, schedule.frozen)
        self.weights = list(self.named.values())
        self.optimizer = _optimizer(self.named, schedule)
        self.words = WordGradient(network)
        self.rounded = [module for module in network.modules() if isinstance(module, FakeQuantizedLinear)]

    def fingerprint(self) -> str:
        """Return the digest of everything that decides the outcome."""
        weights = {
            name: sha256_bytes(value.detach().cpu().contiguous().numpy().tobytes())
            for name, value in (*self.network.state_dict().items(), *self.learned.state_dict(prefix="learned.").items())
        }
        return digest_of(
            {
                "schedule": self.schedule.to_json(),
                "objective": dict(self.objective.settings),
                "modules": {path: type(module).__name__ for path, module in self.network.named_modules()},
                "seed": self.seed,
                "data": self.data.digest,
                "shape": self.network.shape.to_json(),
                "weights": weights,
                "processes": self.processes.count,
            }
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return the state's tensors, copied where two of them may be the same memory."""
        return {
            **{f"weight.{name}": weight.detach() for name, weight in self.named.items()},
            **optimizer_tensors(self.optimizer, self.named),
            **{f"best.{name}": value for name, value in self.best.items()},
        }

    def restore(self, store: Store) -> None:
        """Go to the latest kept state, if there is one."""
        kept = store.load()
        if kept is None:
            return
        _, tensors, figures = kept
        self.course = _Course.from_json(figures)
        self.best = {name.removeprefix("best."): value for name, value in tensors.items() if name.startswith("best.")}
        with torch.no_grad():
            for name, weight in self.named.items():
                weight.copy_(tensors[f"weight.{name}"])
        restore_optimizer(self.optimizer, self.named, tensors)

    def step(self) -> None:
        """Take one step of AdamW on the next batch."""
        began = time.perf_counter()
        course = self.course
        rows = self.plan.batches[course.step]
        torch.manual_seed(derived_seed(self.seed, course.step, self.processes.number))
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate_at(course.step, self.plan.steps)
        self.network.train()
        self._round(rounding=course.step >= self.plan.rounds_from)
        values = self._gradients(rows)
        self._clip()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for name, value in values.items():
            course.sums[name] = course.sums.get(name, 0.0) + value
        course.since += 1
        course.step += 1
        course.examples += len(rows)
        course.tokens += int(self.lengths[rows].sum())
        course.seconds += time.perf_counter() - began

    def _round(self, *, rounding: bool) -> None:
        for module in self.rounded:
            module.rounding = rounding

    def _gradients(self, rows: Rows) -> dict[str, float]:
        """Leave the gradients of the loss over `rows`, and return the loss's parts, unweighted."""
        batch = self.data.batch(self.processes.share(rows)).to(self.processes.device)
        with self.schedule.compute.autocast():
            terms = self.objective(self.network, batch)
        sizes = self.processes.summed([float(term.size) for term in terms.values()])
        means = {name: term.total / max(size, 1.0) for (name, term), size in zip(terms.items(), sizes, strict=True)}
        loss = torch.stack([mean * terms[name].weight for name, mean in means.items()]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        self.words.densify()
        self.processes.sum_gradients(self.weights)
        values = self.processes.summed([float(mean.detach()) for mean in means.values()])
        if not all(math.isfinite(value) for value in values):
            raise BadInput(
                f"the loss is no longer a number at step {self.course.step + 1} of {self.plan.steps}",
                where="training",
                fix=f"Lower the learning rate from {self.schedule.learning_rate:g}.",
            )
        return dict(zip(means, values, strict=True))

    def _clip(self) -> None:
        """Scale the gradients down to the norm `clip` where they are larger; else leave them untouched, unread."""
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if float(norm) > self.schedule.clip:
            torch._foreach_mul_(gradients, self.schedule.clip / (float(norm) + 1e-6))

    def evaluate(self, evaluate: Callable[[Network], float] | None) -> None:
        """Score the network and keep its weights when no earlier ones were better."""
        course, score = self.course, None
        if evaluate is not None:
            self.network.eval()
            with self.schedule.compute.autocast():  # in float32 long texts took as long to score as to learn
                score = self.processes.of_first(float(evaluate(self.network)) if self.processes.first else 0.0)
        course.points.append(Point(course.step, score, course.means()))
        course.sums, course.since = {}, 0
        # What was scored without rounding is another model than the one that is wanted.
        outdated = course.best_step <= self.plan.rounds_from < course.step
        if score is None or course.best_score is None or outdated or score >= course.best_score:
            course.best_step, course.best_score = course.step, score
            # Without scores the last weights are the best, and they are in the network at the end.
            self.best = {} if score is None else _copies(self.network)

    def finish(self) -> History:
        """Leave the best weights in the network, on the CPU, and return the history."""
        if self.best:
            self.network.load_state_dict(self.best)
        for weight in self.network.parameters():
            weight.requires_grad = True
        self.words.release()
        self.network.to("cpu").eval()
        return self.course.history()


def _copies(network: Network) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def _trained(network: Network, learned: nn.Module, frozen: tuple[str, ...]) -> dict[str, nn.Parameter]:
    named: dict[str, nn.Parameter] = {}
    for name, weight in network.named_parameters():
        weight.requires_grad = not (frozen and name.startswith(frozen))
        if weight.requires_grad and weight.numel():
            named[name] = weight
    if not named:
        raise BadInput("every weight is frozen, so there is nothing to train", where="schedule")
    return {**named, **{f"learned.{name}": weight for name, weight in learned.named_parameters()}}


def _optimizer(named: Mapping[str, nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov and Hutter 2019) that decays matrices only.

    Biases and norms are not decayed, and neither are embedding tables: rows of words that the data never shows would
    shrink without ever being learned.
    """
    decays = {name: weight.ndim > 1 and not name.startswith(TABLES) for name, weight in named.items()}
    groups = [
        {"params": [weight for name, weight in named.items() if decays[name] is yes], "weight_decay": decay}
        for yes, decay in ((True, schedule.weight_decay), (False, 0.0))
    ]
    # One pass over memory per step: the loop over tensors and operations costs several.
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=schedule.learning_rate, fused=True)
