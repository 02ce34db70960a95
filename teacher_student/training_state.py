"""A training run in the middle, as files, so that a killed run goes on as if nothing had happened."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.errors import BadFile
from models.files import new_directory, read_object, write_json
from models.tensor_file import write_tensors

FORMAT = 1
RECORD = "state.json"
TENSORS = "state.safetensors"


@dataclass(frozen=True, slots=True)
class Store:
    """Training states of one run below `directory`; `fingerprint` is the digest of everything the run depends on.

    No random state is kept: the order of the data and every step's dropout are drawn anew from (seed, step).
    """

    directory: Path
    fingerprint: str

    def save(self, step: int, tensors: Mapping[str, Tensor], figures: Mapping[str, Any]) -> None:
        """Keep the state after `step` steps, whole, and drop older ones."""
        place = self.directory / f"step-{step:09d}"
        if place.exists():
            shutil.rmtree(place)
        with new_directory(place) as directory:
            plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
            write_tensors(directory / TENSORS, plain)
            record = {"format": FORMAT, "fingerprint": self.fingerprint, "step": step, "figures": dict(figures)}
            write_json(directory / RECORD, record)
        for older in self._places():
            if older != place:
                shutil.rmtree(older)

    def load(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """Return (step, tensors, figures) of the latest state of this very run, or None where there is none."""
        for place in reversed(self._places()):
            try:
                record = read_object(place / RECORD)
                if record.get("format") != FORMAT or record.get("fingerprint") != self.fingerprint:
                    continue
                return int(record["step"]), load_file(place / TENSORS), dict(record["figures"])
            except (BadFile, SafetensorError, OSError):
                continue  # only time is lost: the run starts from an older state, or anew
        return None

    def _places(self) -> list[Path]:
        return sorted(self.directory.glob("step-*")) if self.directory.is_dir() else []


def optimizer_tensors(optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the optimizer's moments and step counts by the names of the weights."""
    return {
        f"{key}.{name}": value
        for name, weight in named.items()
        for key, value in optimizer.state.get(weight, {}).items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` returned."""
    for name, weight in named.items():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            value = tensors.get(f"{key}.{name}")
            if value is not None:
                optimizer.state[weight][key] = value.to(weight.device)
