"""The processes that train one network together: one alone, or those that `accelerate launch` started."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from teacher_student.compute import Compute

T = TypeVar("T")
# The others wait while the first computes the teacher's outputs; a process that dies is the launcher's to notice.
PATIENCE = timedelta(days=1)

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Processes:
    """This process's number among `count`, and its device. Number 0 alone writes files."""

    number: int
    count: int
    device: torch.device

    @staticmethod
    def join(compute: Compute) -> Processes:
        """Return the processes that Accelerate finds around this one, connected; alone, nothing is set up."""
        from accelerate import PartialState

        device = torch.device(compute.device)
        state = PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
        if state.num_processes == 1:
            return Processes(0, 1, device)
        own = device if device.type == "cpu" else torch.device(state.device)
        return Processes(int(state.process_index), int(state.num_processes), own)

    @property
    def first(self) -> bool:
        """Return whether this process is the one that writes."""
        return self.number == 0

    def share(self, rows: Rows) -> Rows:
        """Return this process's part of a batch; a batch with fewer rows than processes is done whole by each.

        Sums and counts are added up over processes, so whole batches done by all still give the right mean.
        """
        return rows if len(rows) < self.count else rows[self.number :: self.count]

    def summed(self, numbers: Sequence[float]) -> list[float]:
        """Return the element-wise sum over processes."""
        if self.count == 1:
            return list(numbers)
        vector = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(vector)
        return [float(value) for value in vector]

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by its sum over processes; one that no process has stays None."""
        if self.count == 1:
            return
        have = torch.tensor([float(weight.grad is not None) for weight in parameters], device=self.device)
        parts = [have, *(_gradient(weight).reshape(-1) for weight in parameters)]
        flat = torch.cat(parts)
        torch.distributed.all_reduce(flat)
        have, *summed = torch.split(flat, [len(part) for part in parts])
        for present, part, weight in zip(have.tolist(), summed, parameters, strict=True):
            weight.grad = part.view_as(weight) if present else None

    def of_first(self, value: float) -> float:
        """Return the first process's `value`."""
        if self.count == 1:
            return value
        vector = torch.tensor([value], dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(vector, src=0)
        return float(vector[0])

    def first_goes_ahead(self, make: Callable[[], T]) -> T:
        """Return `make()`, which the first process runs before the others, so that they find what it wrote."""
        if self.count == 1:
            return make()
        if self.first:
            made = make()
            torch.distributed.barrier()
            return made
        torch.distributed.barrier()
        return make()


def _gradient(weight: nn.Parameter) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad
