"""Ours: the checkpoint's own graphs, and the same in int8 as the stage `quantize` makes it by default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.quantization.schemes import forms_of, quantize
from export.graph_file import graph_file
from export.target import CPU
from models.checkpoint import Checkpoint


def build(checkpoint: Path, texts: list[dict[str, list[int]]], out: Path) -> dict[str, Any]:
    """Write the graphs into `out`, with the checkpoint of each, and return the files that write."""
    teacher = Checkpoint.load(checkpoint)
    models = {"fp32": teacher, "int8": quantize(teacher, forms_of(teacher))}
    for name, model in models.items():
        folder = out / name
        folder.mkdir()
        model.save(folder)
        graph = graph_file(model.network(), CPU)
        for file, data in ((graph.name, graph.data), *graph.extra.items()):
            (folder / file).write_bytes(data)
    return {f"ours {name}": f"{name}/{graph.name}" for name in models}
