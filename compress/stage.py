"""What a stage is, and what it is handed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from compress.settings import Settings
from models.checkpoint import Checkpoint
from models.encoded import Encoded
from models.errors import BadInput
from models.progress import Progress, silent
from models.task import Task

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True, slots=True)
class Context:
    """What every stage may use: never a gate, a sibling, the ledger, or its own directory.

    `examples` holds "train" and "validation" where the recipe names them, as the stage's input reads them, and
    `encoded` gives those of a role as another checkpoint does. `lessons` gives what a checkpoint learns from: the
    training examples, the extra texts, and so many changed copies of both, unlabelled. `scratch` survives a kill and is
    deleted when the stage's artifact is sealed. `cache` is shared between runs and holds only what can be computed
    again. `threads` is what ONNX Runtime will be given on the device. `ensemble` holds the teachers besides the first.
    With `sequence` the student learnt the texts that the teacher writes.
    """

    teacher: Checkpoint
    task: Task
    examples: Mapping[str, Encoded]
    encoded: Callable[[str, Checkpoint], Encoded]
    lessons: Callable[[int, Checkpoint], Encoded]
    seed: int
    threads: int
    scratch: Path
    cache: Path
    progress: Progress = silent
    ensemble: tuple[Checkpoint, ...] = ()
    sequence: bool = False

    @property
    def train(self) -> Encoded:
        """Return the examples to learn from.

        Raises:
            BadInput: none were given.
        """
        return self._given("train")

    @property
    def validation(self) -> Encoded:
        """Return the examples that the gates judge on; errors as `train`."""
        return self._given("validation")

    def _given(self, role: str) -> Encoded:
        if role not in self.examples:
            raise BadInput("this stage needs examples", where=f"data.{role}", fix=f"Give --{role} FILE.")
        return self.examples[role]


class Product(Protocol):
    """What a stage makes: a checkpoint or a bundle. It writes its files into an empty directory."""

    def save(self, directory: Path) -> None:
        """Write every file into `directory`."""

    @property
    def parameters(self) -> int:
        """Return the number of weights."""


P = TypeVar("P", bound=Product, covariant=True)


@dataclass(frozen=True, slots=True)
class Output(Generic[P]):
    """What a stage returns: its product, and what is worth telling about how it was made (JSON values)."""

    product: P
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stage(Generic[S, P]):
    """A named function from a checkpoint to a checkpoint or a bundle.

    `milder` returns less demanding settings after a failed gate, given the details of the failed attempt, or None when
    there are none left.
    """

    name: str
    settings: type[S]
    run: Callable[[Checkpoint, S, Context], Output[P]]
    milder: Callable[[S, dict[str, Any]], S | None]
