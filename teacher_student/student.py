"""A student's shape, and its first weights out of the teacher's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.checkpoint import Checkpoint
from models.errors import BadInput
from models.shape import LayerShape, ModelShape
from teacher_student.layer_map import evenly_spread

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class StudentPlan:
    """A student's shape, and the teacher's layer that each of its layers is copied from."""

    shape: ModelShape
    sources: tuple[int, ...]


def student_shape(
    teacher: ModelShape, *, layers: int | Sequence[int], ffn: int | None = None, heads: int | None = None
) -> StudentPlan:
    """Return the plan of a student that keeps `layers` of the teacher's layers (a number, or which ones from 0).

    A number is spread evenly, first and last included. `ffn` and `heads` narrow every kept layer to at most that many
    neurons and heads.

    Raises:
        BadInput: layers, neurons or heads that the teacher does not have.
    """
    sources = _sources(layers, len(teacher.layers))
    kept = [teacher.layers[source] for source in sources]
    for name, wanted, most in (
        ("FFN neurons", ffn, max(layer.ffn for layer in kept)),
        ("heads", heads, max(layer.heads for layer in kept)),
    ):
        if wanted is not None and not 1 <= wanted <= most:
            raise BadInput(
                f"a student of {wanted} {name} cannot be cut out of a teacher of {most}",
                where="student",
                fix=f"Ask for 1 to {most}, or give an architecture of its own.",
            )
    shapes = tuple(
        replace(
            layer,
            heads=layer.heads if heads is None else min(heads, layer.heads),
            ffn=layer.ffn if ffn is None else min(ffn, layer.ffn),
        )
        for layer in kept
    )
    return StudentPlan(replace(teacher, layers=shapes), sources)


def with_attention(
    shape: ModelShape,
    *,
    layers: Sequence[int] = (),
    window: int | None = None,
    global_tokens: int = 0,
    linear: bool = False,
) -> ModelShape:
    """Return the shape with another attention in these of its layers, in all where none are named: in a window,
    linear, or of every token where neither is asked for. Weights fit as they are.

    Raises:
        BadInput: layers that the shape does not have.
    """
    wrong = [index for index in layers if not 0 <= index < len(shape.layers)]
    if wrong:
        raise BadInput(
            f"the student has {len(shape.layers)} layers, and no layer {wrong[0]}",
            where="student",
            fix=f"Its layers are numbered from 0 to {len(shape.layers) - 1}.",
        )
    chosen = set(layers or range(len(shape.layers)))
    changed = (
        replace(layer, window=window, global_tokens=global_tokens, linear=linear) if index in chosen else layer
        for index, layer in enumerate(shape.layers)
    )
    return replace(shape, layers=tuple(changed))


def _sources(layers: int | Sequence[int], available: int) -> tuple[int, ...]:
    if isinstance(layers, int):
        if not 1 <= layers <= available:
            raise BadInput(
                f"a student of {layers} layers cannot be cut out of a teacher of {available}",
                where="student",
                fix=f"Ask for 1 to {available} layers.",
            )
        return evenly_spread(layers, available)
    chosen = tuple(layers)
    rising = all(before < after for before, after in zip(chosen, chosen[1:], strict=False))
    if not chosen or not rising or chosen[0] < 0 or chosen[-1] >= available:
        raise BadInput(
            f"layers {list(chosen)} are not rising layer numbers of a teacher of {available} layers",
            where="student",
            fix=f"Layers are numbered from 0 to {available - 1}.",
        )
    return chosen


def with_dropout(checkpoint: Checkpoint, dropout: float | None) -> Checkpoint:
    """Return the checkpoint with this dropout everywhere; None leaves its own."""
    if dropout is None:
        return checkpoint
    head = checkpoint.shape.head
    shape = replace(
        checkpoint.shape,
        dropout=dropout,
        attention_dropout=dropout,
        head=None if head is None else replace(head, dropout=dropout),
    )
    return replace(checkpoint, shape=shape)


def build_student(teacher: Checkpoint, plan: StudentPlan | ModelShape, *, seed: int) -> Checkpoint:
    """Return a student that reads with the teacher's reader, with as much of its weights as fits.

    With a plan every weight comes from the teacher: a narrower FFN keeps the neurons of the largest |up| * |down| (the
    norms of what a neuron reads and writes), fewer heads the largest |value| * |output|. A shape of the teacher's
    hidden size is built the same way, its layers from evenly spread ones where they fit. A shape of another hidden
    size is drawn new from `seed`, but narrower embedding tables are projected on the word table's principal
    directions (truncated SVD). Where the student has more positions, the teacher's are repeated (Beltagy et al. 2020,
    section 5).

    Raises:
        BadInput: a quantized teacher, or a vocabulary smaller than the tokenizer's.
    """
    if teacher.shape.int8:
        raise BadInput("a quantized model cannot be made into a student", where="student", fix="Give the float model.")
    shape = plan.shape if isinstance(plan, StudentPlan) else plan
    problem = teacher.reader.problem(shape)
    if problem is not None:
        raise BadInput(f"the student reads what its teacher reads: {problem}", where="student")
    fresh = dict(Checkpoint.new(shape, teacher.reader, seed=seed).weights)
    teacher = replace(teacher, weights={**teacher.weights, **_longer_positions(teacher, shape)})
    if shape.hidden_size != teacher.shape.hidden_size:
        fresh.update(_projected_tables(teacher.weights, fresh))
        return replace(teacher, shape=shape, weights=fresh)
    if isinstance(plan, StudentPlan):
        sources: tuple[int, ...] = plan.sources
    else:
        sources = evenly_spread(min(len(shape.layers), len(teacher.shape.layers)), len(teacher.shape.layers))
    fresh.update(_copied(teacher.weights, fresh, sources))
    for place, source in enumerate(sources):
        inner = _narrowed(teacher, source, shape.layers[place])
        for name, value in inner.items():
            slot = fresh.get(f"layers.{place}.{name}")
            if slot is not None and value.shape == slot.shape:
                fresh[f"layers.{place}.{name}"] = value
    return replace(teacher, shape=shape, weights=fresh)


def _longer_positions(teacher: Checkpoint, shape: ModelShape) -> dict[str, Tensor]:
    """Return the table of learned positions, repeated up to what the student has; nothing where it has no more."""
    name = "embeddings.position.weight"
    missing = shape.max_positions - teacher.shape.max_positions
    if name not in teacher.weights or missing <= 0:
        return {}
    table = teacher.weights[name]
    places = table[teacher.shape.position_offset :]
    return {name: torch.cat([table, places.repeat(-(-missing // len(places)), 1)[:missing]])}


def _copied(teacher: Weights, student: Weights, sources: Sequence[int]) -> dict[str, Tensor]:
    """Return every weight of the student that the teacher has in the same size; tables may be shorter."""
    copied: dict[str, Tensor] = {}
    for name, slot in student.items():
        theirs = name
        if name.startswith("layers."):
            _, place, inner = name.split(".", 2)
            if int(place) >= len(sources):
                continue
            theirs = f"layers.{sources[int(place)]}.{inner}"
        value = teacher.get(theirs)
        if value is None:
            continue
        if name.startswith("embeddings.") and value.ndim == 2 and len(value) > len(slot):
            value = value[: len(slot)]
        if value.shape == slot.shape:
            copied[name] = value.clone()
    return copied


def _narrowed(teacher: Checkpoint, source: int, wanted: LayerShape) -> dict[str, Tensor]:
    """Return the attention and FFN weights of the teacher's layer `source` with the strongest heads and neurons."""
    shape = teacher.shape.layers[source]
    own = {
        name.removeprefix(f"layers.{source}."): value
        for name, value in teacher.weights.items()
        if name.startswith(f"layers.{source}.")
    }
    narrowed: dict[str, Tensor] = {}
    if wanted.ffn <= shape.ffn:
        writers = ("ffn.up", "ffn.gate") if teacher.shape.gated else ("ffn.up",)
        strength = own["ffn.down.weight"].norm(dim=0)
        for name in writers:
            strength = strength * own[f"{name}.weight"].norm(dim=1)
        neurons = _strongest(strength, wanted.ffn)
        for name in writers:
            narrowed[f"{name}.weight"] = own[f"{name}.weight"][neurons]
            narrowed[f"{name}.bias"] = own[f"{name}.bias"][neurons]
        narrowed["ffn.down.weight"] = own["ffn.down.weight"][:, neurons]
    if wanted.heads <= shape.heads and wanted.head_size == shape.head_size:
        value = own["attention.value.weight"].reshape(shape.heads, -1).norm(dim=1)
        output = own["attention.output.weight"].reshape(-1, shape.heads, shape.head_size).norm(dim=(0, 2))
        heads = _strongest(value * output, wanted.heads)
        columns = (heads[:, None] * shape.head_size + torch.arange(shape.head_size)).reshape(-1)
        for name in ("query", "key", "value"):
            narrowed[f"attention.{name}.weight"] = own[f"attention.{name}.weight"][columns]
            narrowed[f"attention.{name}.bias"] = own[f"attention.{name}.bias"][columns]
        narrowed["attention.output.weight"] = own["attention.output.weight"][:, columns]
        if "attention.relative.weight" in own:
            narrowed["attention.relative.weight"] = own["attention.relative.weight"][:, heads]
    return {name: value.clone().contiguous() for name, value in narrowed.items()}


def _strongest(strength: Tensor, count: int) -> Tensor:
    """Return the numbers of the `count` largest values, in their own order."""
    return torch.sort(torch.sort(strength, descending=True, stable=True).indices[:count]).values


def _projected_tables(teacher: Weights, student: Weights) -> dict[str, Tensor]:
    """Return the embedding tables projected to the student's smaller width, or as they are at the same width; nothing
    when it is wider, or there are no words.
    """
    if "embeddings.word.weight" not in teacher:
        return {}
    words = teacher["embeddings.word.weight"].double()
    width = student["embeddings.word.weight"].shape[1]
    if width > words.shape[1]:
        return {}
    if width == words.shape[1]:  # factorised: only the projection has another size
        alike = _copied(teacher, student, ())
        return {name: value for name, value in alike.items() if name.startswith("embeddings.")}
    # Eigenvectors of E^T E are the right singular vectors of E; eigh sorts them by rising value.
    basis = torch.linalg.eigh(words.T @ words).eigenvectors[:, -width:].float()
    projected: dict[str, Tensor] = {}
    for name in ("embeddings.word.weight", "embeddings.position.weight", "embeddings.token_type.weight"):
        if name in teacher and name in student and len(teacher[name]) >= len(student[name]):
            projected[name] = (teacher[name][: len(student[name])] @ basis).contiguous()
    return projected
