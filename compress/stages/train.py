"""Fine-tune a checkpoint, or train a new network, on labels."""

from __future__ import annotations

from typing import Any

from compress.lessons import schedule_of
from compress.settings import TrainSettings
from compress.stage import Context, Output, Stage
from models.checkpoint import Checkpoint
from teacher_student.distillation import Lessons, fine_tune
from teacher_student.student import with_dropout


def train(checkpoint: Checkpoint, settings: TrainSettings, context: Context) -> Output[Checkpoint]:
    """Return the checkpoint trained on the labels of the training data."""
    trained, history = fine_tune(
        with_dropout(checkpoint, settings.dropout),
        lessons=Lessons(
            task=context.task,
            train=context.train.moved if settings.augment else context.train,
            validation=context.examples.get("validation"),
            seed=context.seed,
            cache=context.cache,
            scratch=context.scratch,
            progress=context.progress,
        ),
        schedule=schedule_of(settings),
        smoothing=settings.label_smoothing,
    )
    return Output(trained, {"training": history.to_json()})


def milder(settings: TrainSettings, details: dict[str, Any]) -> None:
    """Return nothing: a teacher is its own reference."""


TRAIN: Stage[TrainSettings, Checkpoint] = Stage("train", TrainSettings, train, milder)
