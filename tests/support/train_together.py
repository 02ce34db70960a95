"""Distil tiny students and write their weights, in two processes at once and alone: each in a folder that is given."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import debug_launcher
from safetensors.torch import save_file

from models.checkpoint import Checkpoint
from models.content import Tokens
from models.encoded import Encoded
from models.shape import HeadShape, LayerShape, ModelShape
from models.tasks.text_classification import TextClassification
from models.tokenizing import Tokenizing
from teacher_student.compute import Compute
from teacher_student.distillation import Lessons, distill
from teacher_student.losses import LossWeights
from teacher_student.processes import Processes
from teacher_student.schedule import Schedule
from teacher_student.student import build_student, student_shape

WORDS = 24


def main(directory: Path) -> None:
    """Distil with dropout 0 on rows of uneven lengths, some unlabelled, in batches that two processes cannot halve."""
    words = {"[PAD]": 0, "[UNK]": 1, **{f"w{number}": number for number in range(2, WORDS)}}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}
    tokenizing = Tokenizing(json.dumps({"version": "1.0", "added_tokens": [], "model": model}), {"pad_token": "[PAD]"})
    shape = ModelShape(
        family="bert",
        vocab_size=WORDS,
        hidden_size=16,
        layers=(LayerShape(4, 4, 24),) * 2,
        max_positions=16,
        initializer_range=0.25,
        dropout=0.0,
        attention_dropout=0.0,
        head=HeadShape(("no", "yes"), dropout=0.0),
    )
    teacher = Checkpoint.new(shape, tokenizing, seed=0)
    narrow = build_student(teacher, replace(shape, hidden_size=8, layers=(LayerShape(2, 4, 12),)), seed=1)
    cut = build_student(teacher, student_shape(shape, layers=1), seed=1)
    for name, student in (("narrow", narrow), ("cut", cut)):
        lessons = Lessons(
            TextClassification(), _data(29, 0), _data(12, 1), 0, directory / "cache", directory / f"scratch-{name}"
        )
        trained, history = distill(
            teacher,
            student,
            lessons=lessons,
            weights=LossWeights(kl=1.0, mse=1.0, hidden=1.0, relations=1.0, labels=0.5),
            schedule=Schedule(epochs=3, batch_size=7, learning_rate=1e-3, save_every_s=0, compute=Compute()),
        )
        processes = Processes.join(Compute())
        file = directory / f"{name}-{processes.number}-of-{processes.count}"
        save_file(dict(trained.weights), file.with_suffix(".safetensors"))
        file.with_suffix(".json").write_text(json.dumps([dict(point.losses) for point in history.points]))


def _data(rows: int, seed: int) -> Encoded:
    random = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(random.integers(3, 9, rows))]).astype(np.int64)
    ids = random.integers(2, WORDS, int(offsets[-1])).astype(np.int32)
    targets = np.where(np.arange(rows) % 3 == 0, -1, ids[offsets[:-1]] % 2).astype(np.int64)
    return Encoded(Tokens(ids, np.full(rows, -1, dtype=np.int32)), offsets, targets, 0, f"{rows}-{seed}")


if __name__ == "__main__":
    torch.optim.AdamW([torch.zeros(1)])  # loads what every training needs, once for all processes
    debug_launcher(main, (Path(sys.argv[1]),), num_processes=2)
    main(Path(sys.argv[2]))
