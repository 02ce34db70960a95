"""From settings to what teacher_student takes: schedules, loss weights and lessons."""

from __future__ import annotations

from pathlib import Path

from compress.quantization.schemes import WORD_FORMS
from compress.settings import DistillSettings, LessonSettings, LossSettings, ScheduleSettings
from compress.stage import Context
from models.checkpoint import Checkpoint
from models.encoded import Encoded
from teacher_student.distillation import Lessons, Reading
from teacher_student.losses import LossWeights
from teacher_student.schedule import Schedule
from teacher_student.sequence import written_by


def schedule_of(settings: ScheduleSettings, *, epochs: float | None = None) -> Schedule:
    """Return the schedule that the settings ask for; with another number of epochs, if one is given, nothing rounds:
    that is for trainings between others.
    """
    return Schedule(
        epochs=settings.epochs if epochs is None else epochs,
        int8_epochs=settings.int8_epochs if epochs is None else 0.0,
        words=WORD_FORMS.get(settings.embeddings) if isinstance(settings, LessonSettings) else None,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup=settings.warmup,
        weight_decay=settings.weight_decay,
        clip=settings.clip,
        evaluations_per_epoch=settings.evaluations_per_epoch,
    )


def weights_of(settings: LossSettings) -> LossWeights:
    """Return the loss that the settings ask for."""
    return LossWeights(
        kl=settings.kl,
        temperature=settings.temperature,
        mse=settings.mse,
        hidden=settings.hidden,
        relations=settings.relations,
        labels=settings.labels,
    )


def lessons_of(
    context: Context, scratch: Path, *, student: Checkpoint, settings: LessonSettings, select: bool
) -> Lessons:
    """Return what the teacher teaches; with `select` the best weights on the validation data, if any, are kept.

    Raises:
        BadInput: texts that the teacher writes are asked for, and it writes none.
    """
    validation = "validation" in context.examples

    def read_by(teacher: Checkpoint) -> Reading:
        judged = context.encoded("validation", teacher) if validation else None
        return Reading(teacher, context.lessons(settings.copies, teacher), judged)

    own, train = read_by(context.teacher), context.lessons(settings.copies, student)
    if isinstance(settings, DistillSettings) and settings.sequence:
        told = written_by(context.teacher, own.train, cache=context.cache, progress=context.progress)
        own, train = own._replace(train=told), told if train.digest == own.train.digest else train
    return Lessons(
        task=context.task,
        train=train,
        validation=context.encoded("validation", student) if validation and select else None,
        seed=context.seed,
        cache=context.cache,
        scratch=scratch,
        progress=context.progress,
        teacher_train=own.train,
        teacher_validation=own.validation,
        ensemble=tuple(read_by(teacher) for teacher in context.ensemble),
    )


def taught(context: Context, student: Checkpoint) -> Encoded | None:
    """Return the training texts with what the teacher wrote for them, where the student learnt that and reads them as
    the teacher does; else None.
    """
    if not context.sequence or student.reader.digest != context.teacher.reader.digest:
        return None
    read = context.encoded("train", context.teacher)
    return written_by(context.teacher, read, cache=context.cache, progress=context.progress)
