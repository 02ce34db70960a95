"""Build a student out of the teacher and train it on the teacher's outputs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from compress.architectures import decoder_layers, deviation
from compress.lessons import lessons_of, schedule_of, weights_of
from compress.pruning.importance import score_channels
from compress.pruning.latency_table import Clock
from compress.pruning.width import Channels, narrowed
from compress.settings import ArchitectureSettings, DistillSettings
from compress.stage import Context, Output, Stage
from models.bert_encoder import even_layers
from models.checkpoint import Checkpoint
from models.kinds import Activation
from models.shape import ModelShape
from teacher_student.directions import in_main_directions, narrower_head
from teacher_student.distillation import distill
from teacher_student.norms import refitted_norms, with_elementwise_norms
from teacher_student.student import StudentPlan, build_student, student_shape, with_attention, with_dropout

SCORED_ROWS = 1024  # that channels are scored on, and what reads them is fitted to
WINDOW, GLOBAL_TOKENS = 64, 1  # where a window is asked for, and not how wide


def plan(teacher: ModelShape, settings: DistillSettings) -> StudentPlan | ModelShape:
    """Return the student's shape, with the teacher's layers it is made of where it is made of them."""
    if settings.architecture is not None:
        return _as_asked(_of_its_own(teacher, settings.architecture), teacher, settings)
    asked = settings.layers
    layers = list(asked) if isinstance(asked, tuple) else kept_layers(settings, len(teacher.layers))
    made = student_shape(teacher, layers=layers, ffn=settings.ffn, decoder_layers=settings.decoder_layers)
    return StudentPlan(_as_asked(made.shape, teacher, settings), made.sources, made.written)


def _as_asked(shape: ModelShape, teacher: ModelShape, settings: DistillSettings) -> ModelShape:
    """Return the shape with the activation, the dimensions, the positions and the attention that the settings ask
    for.
    """
    if settings.activation is not None:
        shape = replace(shape, activation=Activation(settings.activation))
    if settings.dimensions is not None:
        shape = narrower_head(shape, teacher, settings.dimensions)
    if settings.positions is not None:
        shape = replace(shape, max_positions=settings.positions + shape.position_offset)
    if settings.attention is None:
        return shape
    windowed = settings.attention == "window"
    wide = GLOBAL_TOKENS if settings.global_tokens is None else settings.global_tokens
    return with_attention(
        shape,
        layers=settings.attention_layers,
        window=(settings.window or WINDOW) if windowed else None,
        global_tokens=wide if windowed else 0,
        linear=settings.attention == "linear",
    )


def kept_layers(settings: DistillSettings, layers: int) -> int:
    """Return how many of a teacher's `layers` layers the student keeps: a number, a share of them, or a list."""
    asked = settings.layers
    if isinstance(asked, tuple):
        return len(asked)
    return max(1, round(asked * layers)) if asked < 1 else int(asked)


def run(parent: Checkpoint, settings: DistillSettings, context: Context) -> Output[Checkpoint]:
    """Return the trained student. It is built out of `parent`, and learns from the original teacher."""
    student, told = untrained(parent, settings, context)
    trained, history = distill(
        context.teacher,
        with_dropout(student, settings.dropout),
        lessons=lessons_of(context, context.scratch, student=student, settings=settings, select=True),
        weights=weights_of(settings.losses),
        schedule=schedule_of(settings),
    )
    told |= {"training": history.to_json(), "teacher_layers": len(context.teacher.shape.layers)}
    return Output(trained, told)


def untrained(parent: Checkpoint, settings: DistillSettings, context: Context) -> tuple[Checkpoint, dict[str, Any]]:
    """Return the student as it is before training, and what is told of it."""
    student = build_student(parent, plan(parent.shape, settings), seed=context.seed)
    told: dict[str, Any] = {}
    if settings.dimensions is not None:
        texts = context.lessons(0, context.teacher)
        student, kept = in_main_directions(student, context.teacher, texts, seed=context.seed)
        told |= {} if kept is None else {"embedding_kept": kept}
    if settings.hidden_size is not None and settings.hidden_size != parent.shape.hidden_size:
        student, gained = _narrowed(parent, student, settings.hidden_size, context)
        told |= gained
    if settings.norm is not None:
        student = with_elementwise_norms(student, context.train.sample(seed=context.seed))
    return student, told


def _narrowed(
    parent: Checkpoint, student: Checkpoint, width: int, context: Context
) -> tuple[Checkpoint, dict[str, Any]]:
    """Return the student with the channels that the parent would miss most, and what the runtime gains by that.

    The gain is measured in int8 on the emitted graphs; it does not depend on what the weights are.
    """
    examples: dict[str, Any] = {"examples": SCORED_ROWS, "seed": context.seed, "progress": context.progress}
    scores = score_channels(parent, context.train, context.task, **examples)
    channels = Channels.strongest(student, scores, width)
    narrow = narrowed(student, channels, context.train, **examples)
    some = context.train.sample(seed=context.seed)
    narrow = refitted_norms(narrow, student, some, stream=channels.stream, head=channels.head)
    clock = Clock(context.train, context.threads, context.cache, int8=True, progress=context.progress)
    gain = clock.speedup(student, narrow)
    before, after = student.shape.hidden_size, narrow.shape.hidden_size
    return narrow, {"hidden_size": {"before": before, "after": after, "measured_speedup": gain}}


def milder(settings: DistillSettings, details: dict[str, Any]) -> DistillSettings | None:
    """Return a student with one more layer, as long as the teacher has more."""
    layers = int(details["teacher_layers"])
    kept = kept_layers(settings, layers)
    if settings.architecture is not None or kept + 1 >= layers:
        return None
    return settings.model_copy(update={"layers": kept + 1})


def _of_its_own(teacher: ModelShape, settings: ArchitectureSettings) -> ModelShape:
    head = teacher.head
    if head is not None and not head.labels and not head.projected:
        head = replace(head, width=settings.hidden_size)
    layers = even_layers(settings.layers, hidden=settings.hidden_size, heads=settings.heads, ffn=settings.ffn)
    scaled = teacher.embedding_scale == math.sqrt(teacher.hidden_size)
    decoder = teacher.decoder
    if decoder is not None:
        decoder = replace(decoder, layers=decoder_layers(settings, layers))
    return replace(
        teacher,
        head=head,
        hidden_size=settings.hidden_size,
        layers=tuple(replace(layer, causal=teacher.layers[0].causal) for layer in layers),
        decoder=decoder,
        activation=Activation(settings.activation),
        initializer_range=deviation(settings, scaled=decoder is not None or teacher.image is not None),
        embedding_scale=math.sqrt(settings.hidden_size) if scaled else teacher.embedding_scale,
    )


DISTILL: Stage[DistillSettings, Checkpoint] = Stage("distill", DistillSettings, run, milder)
