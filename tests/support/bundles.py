"""Tiny bundles, and what a forger does to one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from support.examples import tiny_checkpoint, writing_checkpoint

from export.bundle import Bundle
from export.contents import Contents, write_bundle
from export.graph_file import graph_file, search_file
from export.target import TARGETS
from models.checkpoint import Checkpoint
from models.files import sha256_file

EXAMPLES = [
    {"input_ids": np.array([ids]), "token_type_ids": np.zeros((1, len(ids)), dtype=np.int64)}
    for ids in ([5, 11, 12, 2], [7, 20, 9, 30, 2, 41, 8])
]


def bundle_of(checkpoint: Checkpoint, directory: Path, *, target: str = "cpu") -> Bundle:
    """Write the bundle of a checkpoint that reads texts."""
    directory.mkdir(parents=True, exist_ok=True)
    contents = Contents.of(checkpoint, graph_file(checkpoint.network(), TARGETS[target]), EXAMPLES)
    return write_bundle(directory, contents)


def tiny_bundle(directory: Path, *, target: str = "cpu") -> Bundle:
    """Write the bundle of a random classifier."""
    return bundle_of(tiny_checkpoint(), directory, target=target)


def tiny_translator(directory: Path, *, in_graph: bool = False) -> Bundle:
    """Write the bundle of a random model that writes behind an encoder, its search on the host or in the graph."""
    checkpoint = writing_checkpoint("bart")
    if not in_graph:
        return bundle_of(checkpoint, directory)
    assert checkpoint.generation is not None
    directory.mkdir(parents=True, exist_ok=True)
    graph = search_file(checkpoint.network(), checkpoint.generation, TARGETS["cpu"])
    return write_bundle(directory, Contents.of(checkpoint, graph, EXAMPLES))


def restamp(bundle: Path, name: str) -> None:
    """Write a file's true digest and size into the manifest."""
    entry = {"sha256": sha256_file(bundle / name), "bytes": (bundle / name).stat().st_size}
    edit(bundle / "manifest.json", lambda manifest: manifest["files"].update({name: entry}))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the JSON object in a file."""
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def forge(bundle: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the JSON object in a file, and its digest in the manifest."""
    edit(bundle / name, change)
    restamp(bundle, name)


def forge_model(bundle: Path, change: Callable[[onnx.ModelProto], object], *, name: str = "model.onnx") -> None:
    """Change a graph, and its digest in the manifest."""
    model = onnx.load(bundle / name)
    change(model)
    (bundle / name).write_bytes(model.SerializeToString())
    restamp(bundle, name)
