from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.checkpoint import Checkpoint
from models.content import Tokens
from models.encoded import Encoded
from models.shape import HeadShape, LayerShape, ModelShape
from models.tasks.text_classification import TextClassification
from models.tokenizing import Tokenizing
from teacher_student.compute import Compute
from teacher_student.distillation import Lessons
from teacher_student.schedule import Schedule

VOCABULARY = 24

MakeData = Callable[..., Encoded]
MakeModel = Callable[..., Checkpoint]
MakeSchedule = Callable[..., Schedule]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def tiny_tokenizing() -> Tokenizing:
    words = {"[PAD]": 0, "[UNK]": 1, **{f"w{number}": number for number in range(2, VOCABULARY)}}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}
    value = {"version": "1.0", "added_tokens": [], "model": model, "pre_tokenizer": {"type": "Whitespace"}}
    parts = {"truncation": None, "padding": None, "normalizer": None, "post_processor": None, "decoder": None}
    return Tokenizing(json.dumps({**value, **parts}), {"pad_token": "[PAD]"})


@pytest.fixture
def make_data() -> MakeData:
    """Random rows; the label is whether the second token's number is in the upper half."""

    def make(*, rows: int = 48, seed: int = 0, labelled: bool = True) -> Encoded:
        random = np.random.default_rng(seed)
        lengths = random.integers(3, 9, rows)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        ids = random.integers(2, VOCABULARY, int(offsets[-1])).astype(np.int32)
        targets = (ids[offsets[:-1] + 1] >= VOCABULARY // 2).astype(np.int64)
        if not labelled:
            targets[:] = -1
        second = np.full(rows, -1, dtype=np.int32)
        return Encoded(Tokens(ids, second), offsets, targets, 0, f"random-{rows}-{seed}-{labelled}")

    return make


@pytest.fixture
def make_model() -> MakeModel:
    def make(*, layers: int = 4, seed: int = 0, deviation: float = 0.25, **changes: object) -> Checkpoint:
        shape = ModelShape(
            family="bert",
            vocab_size=VOCABULARY,
            hidden_size=16,
            layers=(LayerShape(heads=4, head_size=4, ffn=24),) * layers,
            max_positions=16,
            type_vocab_size=2,
            initializer_range=deviation,
            head=HeadShape(("no", "yes")),
        )
        return Checkpoint.new(replace(shape, **changes), tiny_tokenizing(), seed=seed)

    return make


@pytest.fixture
def make_schedule() -> MakeSchedule:
    def make(**changes: object) -> Schedule:
        plain: dict[str, object] = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "compute": Compute()}
        return Schedule(**{**plain, **changes})

    return make


@pytest.fixture
def lessons(tmp_path: Path, make_data: MakeData) -> Lessons:
    return Lessons(
        TextClassification(), make_data(), make_data(rows=20, seed=1), 0, tmp_path / "cache", tmp_path / "scratch"
    )
