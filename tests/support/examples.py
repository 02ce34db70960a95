"""Tiny checkpoints with a tokenizer, random encoded rows, and what a stage is handed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from support.networks import EVEN, random_network, tiny_shape
from support.writing_shapes import SHAPES

from compress.stage import Context
from models.checkpoint import Checkpoint
from models.content import Sourced, Tokens
from models.encoded import Encoded
from models.generation_settings import Generation
from models.shape import LayerShape
from models.tasks.text_classification import TextClassification
from models.tokenizing import Tokenizing

WORDS = 50


def tiny_tokenizing() -> Tokenizing:
    """Return a tokenizer of whole words w2 to w49."""
    words = {"[PAD]": 0, "[UNK]": 1, **{f"w{number}": number for number in range(2, WORDS)}}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}
    value = {"version": "1.0", "added_tokens": [], "model": model, "pre_tokenizer": {"type": "Whitespace"}}
    parts = {"truncation": None, "padding": None, "normalizer": None, "post_processor": None, "decoder": None}
    return Tokenizing(json.dumps({**value, **parts}), {"pad_token": "[PAD]"})


def tiny_checkpoint(layers: tuple[LayerShape, ...] = EVEN, *, seed: int = 0, **changes: Any) -> Checkpoint:
    """Return a random checkpoint of width 32 with three labels."""
    network = random_network(tiny_shape(layers, **changes), seed=seed)
    return Checkpoint(network.shape, {}, tiny_tokenizing()).of(network)


def writing_checkpoint(name: str, *, seed: int = 0) -> Checkpoint:
    """Return a random checkpoint of one of the shapes that write."""
    network = random_network(SHAPES[name], seed=seed)
    return Checkpoint(network.shape, {}, tiny_tokenizing(), Generation(start=1, end=(2,), max_tokens=8)).of(network)


def random_rows(rows: int, *, seed: int = 0, labels: int = 3) -> Encoded:
    """Return rows of 3 to 8 random tokens; with 0 labels they are unlabelled."""
    random = np.random.default_rng(seed)
    lengths = random.integers(3, 9, rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = random.integers(2, WORDS, int(offsets[-1])).astype(np.int32)
    targets = random.integers(0, labels, rows) if labels else np.full(rows, -1, dtype=np.int64)
    second = np.full(rows, -1, dtype=np.int32)
    return Encoded(Tokens(ids, second), offsets, targets.astype(np.int64), 0, f"random-{rows}-{seed}-{labels}")


def tiny_context(folder: Path, teacher: Checkpoint, **data: Encoded) -> Context:
    """Return what a stage is handed, with its files below `folder`."""
    return Context(
        teacher=teacher,
        task=TextClassification(),
        examples=data,
        encoded=lambda role, checkpoint: data[role],
        lessons=lambda copies, checkpoint: data["train"],
        seed=0,
        threads=1,
        scratch=folder / "scratch",
        cache=folder / "cache",
    )


def write_data(folder: Path) -> dict[str, str]:
    """Write train, validation and test tables of random words and return their paths."""
    draw = random.Random(0)
    paths = {}
    for role, rows in (("train", 96), ("validation", 60), ("test", 30)):
        lines = [
            json.dumps({"text": " ".join(f"w{draw.randrange(2, 50)}" for _ in range(draw.randrange(2, 9))), "label": 0})
            for _ in range(rows)
        ]
        paths[role] = str(folder / f"{role}.jsonl")
        Path(paths[role]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths


TINY_PRUNING = {"sparsity": 0.3, "rounds": 1, "examples": 32, "ffn_multiple": 4}


def tiny_recipe(folder: Path) -> dict[str, Any]:
    """Write a random teacher and data into `folder` and return what every recipe for them has."""
    (folder / "teacher").mkdir()
    tiny_checkpoint().save(folder / "teacher")
    return {
        "name": "tiny",
        "teacher": str(folder / "teacher"),
        "data": write_data(folder),
        "export": {"golden": 2},
        "measure": {"rounds": 4, "texts": 4},
    }


def random_written(rows: int, *, behind: bool, seed: int = 0) -> Encoded:
    """Return rows of 2 to 6 random tokens, for each the one expected behind it; `behind` a source or by themselves."""
    random = np.random.default_rng(seed)
    lengths = random.integers(2, 7, rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids, labels = (random.integers(2, WORDS, int(offsets[-1])).astype(np.int32) for _ in range(2))
    targets = np.stack([labels.astype(np.int64), np.ones_like(labels, dtype=np.int64)], axis=1)
    second = np.full(rows, -1, dtype=np.int32)
    content: Tokens | Sourced = Tokens(ids, second)
    if behind:
        read = random_rows(rows, seed=seed)
        content = Sourced(ids, read.tokens, read.offsets, tiny_tokenizing())
    digest = f"written-{rows}-{seed}-{behind}"
    return Encoded(content, offsets, targets, 0, digest, by_token=True, examples=np.arange(rows))
