"""What the page of a bundle is made from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import final

from export.manifest import Manifest
from models.shape import ModelShape
from models.task import Task


@final
@dataclass(frozen=True, slots=True)
class Card:
    """A bundle that a page is about: its manifest, its network and the names of its files. Without a `task` it writes
    texts, or gives hidden states.
    """

    manifest: Manifest
    shape: ModelShape
    task: Task | None
    files: Collection[str]

    @property
    def task_name(self) -> str:
        """Return what the model does, in the words of Hugging Face."""
        if self.shape.output is not None:
            return self.shape.output.task
        return "hidden states" if self.task is None else self.task.name
