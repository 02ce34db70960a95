"""Teaching: a student on its teacher's outputs, or a network on labels alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from models.checkpoint import Checkpoint
from models.encoded import Encoded, same_tokens
from models.errors import BadInput
from models.evaluation import outputs_of
from models.generation_settings import Generation
from models.layers.packed import FakeRoundedEmbedding
from models.layers.quantized import FakeQuantizedLinear
from models.network import Network
from models.progress import Progress, silent
from models.shape import ModelShape
from models.summary import contributions
from models.targets import Writes
from models.task import Task
from teacher_student.directions import in_directions_of
from teacher_student.hidden_states import keeps_logits, kept_hidden
from teacher_student.losses import (
    LossWeights,
)
from teacher_student.objectives import DistillationObjective, LabelObjective
from teacher_student.processes import Processes
from teacher_student.schedule import Schedule
from teacher_student.teacher_cache import TeacherOutputs, check_width, check_words, teacher_outputs, weights_digest
from teacher_student.training import History, fit

Reader = Callable[..., TeacherOutputs]  # (checkpoint, data, numbers of hidden states) -> its outputs


class Reading(NamedTuple):
    """A teacher, and the rows of the lessons as its tokenizer reads them."""

    teacher: Checkpoint
    train: Encoded
    validation: Encoded | None


@dataclass(frozen=True, slots=True)
class Lessons:
    """What is taught on: the task, the data, the seed, and where files may be written.

    `validation` chooses the best weights; None keeps the last. `teacher_train` and `teacher_validation` are the same
    rows as the teacher's tokenizer reads them, where the student has another one. `ensemble` holds more teachers: what
    is learned are the mean logits of all, and the hidden states of the first. `cache` holds what can be computed
    again and is shared; `scratch` belongs to this one training, which resumes from it.
    """

    task: Task
    train: Encoded
    validation: Encoded | None
    seed: int
    cache: Path
    scratch: Path
    progress: Progress = silent
    teacher_train: Encoded | None = None
    teacher_validation: Encoded | None = None
    ensemble: tuple[Reading, ...] = ()

    @property
    def one_tokenizer(self) -> bool:
        """Return whether teacher and student read the same tokens."""
        return self.teacher_train is None or same_tokens(self.teacher_train, self.train)

    @property
    def by_words(self) -> bool:
        """Return whether answers to tokens are compared at the first token of each word, because not all who read have
        the same tokens.
        """
        if not self.train.by_token:
            return False
        return not (self.one_tokenizer and all(same_tokens(one.train, self.train) for one in self.ensemble))


def distill(
    teacher: Checkpoint,
    student: Checkpoint,
    *,
    lessons: Lessons,
    weights: LossWeights,
    schedule: Schedule,
) -> tuple[Checkpoint, History]:
    """Return the student trained on the teacher's outputs, and what happened.

    Serves distillation and the recovery after pruning. In the last `schedule.int8_epochs` every linear layer rounds as
    dynamic int8 does (quantization-aware training). Labels are not needed; without labels in the validation data its
    score is the agreement with the teacher.

    Raises:
        BadInput: models of different labels or numbers of answers, a quantized student, no examples, or a loss on
            every token where the two read other tokens.
    """
    for what in ("labels", "answers"):
        ours, theirs = (getattr(model.shape, what) for model in (student, teacher))
        if ours != theirs:
            raise BadInput(f"the student's {what} {ours} are not the teacher's {theirs}", where="distill")
    _check_writers(teacher.shape, student.shape, lessons, weights)
    if (weights.hidden or weights.relations) and not lessons.one_tokenizer:
        raise _other_tokens(teacher, student)
    outputs_of = _reader(student, lessons, schedule)
    objective = _objective(teacher, student, lessons, weights, outputs_of)
    network = _trainable(student, schedule)
    objective.begin(network, lessons.train, seed=lessons.seed)
    history = fit(
        network,
        objective=objective,
        data=lessons.train,
        schedule=schedule,
        evaluate=_judge(teacher, student, lessons, outputs_of),
        seed=lessons.seed,
        scratch=lessons.scratch,
        progress=lessons.progress,
    )
    return student.of(network), history


def _other_tokens(teacher: Checkpoint, student: Checkpoint) -> BadInput:
    """Return what is the matter where tokens are to be compared that are not the same."""
    longest = [one.shape.usable_positions for one in (student, teacher)]
    why, instead = "the student has a tokenizer of its own", "trim the vocabulary last"
    if student.reader.digest == teacher.reader.digest and longest[0] != longest[1]:
        why = f"the student reads texts of up to {longest[0]} tokens and its teacher of up to {longest[1]}"
        instead = f"cut both to what both read (data.max_length: {min(longest)})"
    return BadInput(
        f"hidden states and relations are compared token by token, but {why}",
        where="distill",
        fix=f"Learn from logits alone (losses hidden: 0, relations: 0), or {instead}.",
    )


def _check_writers(teacher: ModelShape, student: ModelShape, lessons: Lessons, weights: LossWeights) -> None:
    """Raise BadInput where models that write cannot be compared word by word."""
    if teacher.output is None and student.output is None:
        return
    if teacher.written_words != student.written_words or not lessons.one_tokenizer:
        raise BadInput("teacher and student write other words, so their logits are not of the same", where="distill")
    if weights.relations and teacher.decoder is not None:
        raise BadInput("relations are learnt of encoders alone", where="losses.relations", fix="Set its weight to 0.")


def _reader(student: Checkpoint, lessons: Lessons, schedule: Schedule) -> Reader:
    """Return what gives a teacher's outputs, kept in the cache, as the lessons need them."""
    compute = schedule.compute
    processes = Processes.join(compute)

    def outputs_of(one: Checkpoint, data: Encoded, hidden: tuple[int, ...] = ()) -> TeacherOutputs:
        alike = in_directions_of(student, one)
        found = processes.first_goes_ahead(
            lambda: teacher_outputs(
                alike, data, hidden=hidden, cache=lessons.cache, compute=compute, progress=lessons.progress
            )
        )
        return found.of_words(data) if lessons.by_words else found

    return outputs_of


def _objective(
    teacher: Checkpoint, student: Checkpoint, lessons: Lessons, weights: LossWeights, outputs_of: Reader
) -> DistillationObjective:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(lessons.seed)  # the projections of the hidden loss are drawn here
        read = lessons.teacher_train or lessons.train
        if not keeps_logits(teacher.shape, tokens=int(read.offsets[-1])):
            if lessons.ensemble:
                raise BadInput("the logits of several teachers that write are too many", where="ensemble")
            return DistillationObjective(
                task=lessons.task,
                teacher=teacher.network(),
                student=student.shape,
                outputs=None,
                weights=weights,
                key=weights_digest(teacher),
            )
        kept = kept_hidden(weights, student.shape, teacher.shape, tokens=int(read.offsets[-1]))
        others = [outputs_of(one.teacher, one.train) for one in lessons.ensemble]
        outputs = outputs_of(teacher, read, kept).averaged(others)
        if weights.mse:
            check_width(outputs, student.shape)
        if lessons.by_words:
            check_words(lessons.train, outputs)
        return DistillationObjective(
            task=lessons.task,
            teacher=teacher.network(),
            student=student.shape,
            outputs=outputs,
            weights=weights,
            by_words=lessons.by_words,
        )


def _judge(
    teacher: Checkpoint, student: Checkpoint, lessons: Lessons, outputs_of: Reader
) -> Callable[[Network], float] | None:
    """What an epoch is judged by: the labels of the validation data, or the teachers' answers where there are none."""
    if lessons.validation is None or (teacher.shape.output is not None and not lessons.validation.labelled.all()):
        return None
    agreed = None
    unlabelled = not lessons.validation.labelled.all()
    if unlabelled and lessons.by_words:  # the teacher's answers are to other tokens
        return None
    if unlabelled:
        others = [outputs_of(one.teacher, one.validation) for one in lessons.ensemble if one.validation is not None]
        agreed = outputs_of(teacher, lessons.teacher_validation or lessons.validation).averaged(others)
    return scorer(lessons.task, lessons.validation, agreed, generation=student.generation, progress=lessons.progress)


def fine_tune(
    checkpoint: Checkpoint, *, lessons: Lessons, schedule: Schedule, smoothing: float = 0.0
) -> tuple[Checkpoint, History]:
    """Return the checkpoint trained on hard labels, of which `smoothing` is shared by all classes, and what happened.

    Raises:
        BadInput: no labelled example, labels that the head does not have, or a quantized checkpoint.
    """
    if not lessons.train.labelled.any():
        raise BadInput("no example has a label, so there is nothing to train on", where="training data")
    classes = lessons.train.targets[:, 0] if lessons.train.by_token else lessons.train.targets
    shape = checkpoint.shape
    known = len(shape.labels) if shape.output is None else shape.written_words
    if np.issubdtype(classes.dtype, np.integer) and int(classes.max()) >= known:
        raise BadInput(f"label number {int(classes.max())}, but the model has {known} labels")
    network = _trainable(checkpoint, schedule)
    evaluate = None
    if lessons.validation is not None:
        evaluate = scorer(
            lessons.task, lessons.validation, None, generation=checkpoint.generation, progress=lessons.progress
        )
    history = fit(
        network,
        objective=LabelObjective(lessons.task, smoothing=smoothing),
        data=lessons.train,
        schedule=schedule,
        evaluate=evaluate,
        seed=lessons.seed,
        scratch=lessons.scratch,
        progress=lessons.progress,
    )
    return checkpoint.of(network), history


def scorer(
    task: Task,
    data: Encoded,
    teacher: TeacherOutputs | None,
    *,
    generation: Generation | None = None,
    progress: Progress = silent,
) -> Callable[[Network], float]:
    """Return what scores a network on `data`, higher is better: the task's metric, on the labels or on the teacher's
    answers where there is a teacher. What is written is written greedily, and given up where it grows to more than
    twice the longest text that is expected.
    """
    judged = data if teacher is None else replace(data, targets=task.predict(teacher.logits, data))
    sign = 1.0 if task.metric.higher_is_better else -1.0
    if generation is not None and task.writes is Writes.BEHIND_SOURCE:
        room = min(generation.max_tokens, 2 * int(data.lengths.max(initial=1)))
        generation = replace(
            generation, beams=1, sampling=None, max_tokens=room, min_tokens=min(generation.min_tokens, room)
        )

    def score(network: Network) -> float:
        outputs = outputs_of(network, data, task.writes, generation=generation, progress=progress)
        statistics = task.statistics(outputs, judged, network.shape.labels)
        return sign * float(contributions(task.metric.summary, statistics).mean())

    return score


def _trainable(checkpoint: Checkpoint, schedule: Schedule) -> Network:
    if checkpoint.shape.int8:
        raise BadInput("a quantized model cannot be trained", where="training", fix="Train first, quantize after.")
    network = checkpoint.network()
    if schedule.words is not None:
        words = dict(network.embeddings.named_children()).get("word")
        if not isinstance(words, nn.Embedding):
            raise BadInput(
                "the network has no words whose table could round", where="embeddings", fix="Leave it float."
            )
        rounded = FakeRoundedEmbedding(words, schedule.words)
        network.set_submodule("embeddings.word", rounded, strict=True)
    if schedule.int8_epochs:
        linear = [(path, module) for path, module in network.named_modules() if isinstance(module, nn.Linear)]
        for path, module in linear:
            if module.weight.numel():
                network.set_submodule(path, FakeQuantizedLinear(module), strict=True)
    return network
