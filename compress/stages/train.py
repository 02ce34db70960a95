"""Fine-tune a checkpoint, or train a new network, on labels."""

from __future__ import annotations

from typing import Any

from compress.lessons import lessons_of, schedule_of
from compress.settings import TrainSettings
from compress.stage import Context, Output, Stage
from models.checkpoint import Checkpoint
from teacher_student.distillation import fine_tune
from teacher_student.student import with_dropout


def train(checkpoint: Checkpoint, settings: TrainSettings, context: Context) -> Output[Checkpoint]:
    """Return the checkpoint trained on the labels of the training data."""
    trained, history = fine_tune(
        with_dropout(checkpoint, settings.dropout),
        lessons=lessons_of(context, context.scratch, select=True),
        schedule=schedule_of(settings),
    )
    return Output(trained, {"training": history.to_json()})


def milder(settings: TrainSettings, details: dict[str, Any]) -> None:
    """Return nothing: a teacher is its own reference."""


TRAIN: Stage[TrainSettings, Checkpoint] = Stage("train", TrainSettings, train, milder)
