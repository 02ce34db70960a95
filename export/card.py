"""What the page of a bundle is made from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, final

from export.manifest import Manifest
from models.shape import ModelShape
from models.task import Task

# What the hub calls tasks that it does not tell apart as we do.
PIPELINES: Final = {
    "multi-label-classification": "text-classification",
    "text-regression": "text-classification",
    "sentence-embedding": "sentence-similarity",
    "hidden states": "feature-extraction",
}
LIBRARIES: Final = {"sentence-embedding": "sentence-transformers"}  # what loads such a bundle as it is


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

    @property
    def pipeline(self) -> str:
        """Return what the model does, in the hub's words."""
        return PIPELINES.get(self.task_name, self.task_name)

    @property
    def metadata(self) -> dict[str, Any]:
        """Return what the hub reads at the head of a page, as far as the bundle itself says it."""
        tags = ["onnx", "onnxruntime", "compress-transformers", *(["int8"] if self.manifest.int8 else [])]
        library = "onnxruntime" if self.manifest.stands_alone else LIBRARIES.get(self.task_name, "onnxruntime")
        return {"library_name": library, "pipeline_tag": self.pipeline, "tags": tags}
