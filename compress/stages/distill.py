"""Build a student out of the teacher and train it on the teacher's outputs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from compress.lessons import lessons_of, schedule_of, weights_of
from compress.settings import ArchitectureSettings, DistillSettings
from compress.stage import Context, Output, Stage
from models.bert_encoder import even_layers
from models.checkpoint import Checkpoint
from models.kinds import Activation
from models.shape import ModelShape
from teacher_student.directions import in_main_directions, narrower_head
from teacher_student.distillation import distill
from teacher_student.student import StudentPlan, build_student, student_shape, with_attention, with_dropout

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
    """Return the shape with the dimensions, the positions and the attention that the settings ask for."""
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
    student = build_student(parent, plan(parent.shape, settings), seed=context.seed)
    kept = None
    if settings.dimensions is not None:
        texts = context.lessons(0, context.teacher)
        student, kept = in_main_directions(student, context.teacher, texts, seed=context.seed)
    trained, history = distill(
        context.teacher,
        with_dropout(student, settings.dropout),
        lessons=lessons_of(context, context.scratch, student=student, settings=settings, select=True),
        weights=weights_of(settings.losses),
        schedule=schedule_of(settings),
    )
    told = {"training": history.to_json(), "teacher_layers": len(context.teacher.shape.layers)}
    return Output(trained, told if kept is None else told | {"embedding_kept": kept})


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
        writes = replace(layers[0], causal=True, cross_heads=settings.heads)
        decoder = replace(decoder, layers=(writes,) * (settings.decoder_layers or len(layers)))
    return replace(
        teacher,
        head=head,
        hidden_size=settings.hidden_size,
        layers=tuple(replace(layer, causal=teacher.layers[0].causal) for layer in layers),
        decoder=decoder,
        activation=Activation(settings.activation),
        initializer_range=settings.initializer_range,
        embedding_scale=math.sqrt(settings.hidden_size) if scaled else teacher.embedding_scale,
    )


DISTILL: Stage[DistillSettings, Checkpoint] = Stage("distill", DistillSettings, run, milder)
