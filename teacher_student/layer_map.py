"""Which of the teacher's layers each layer of the student learns from."""

from __future__ import annotations

from enum import Enum

from models.errors import BadInput


class LayerMap(str, Enum):
    """UNIFORM spreads the student's layers over the teacher's; LAST uses the last layer alone."""

    UNIFORM = "uniform"
    LAST = "last"


def layer_map(kind: LayerMap, *, student: int, teacher: int) -> tuple[tuple[int, int], ...]:
    """Return pairs (student, teacher) of numbers into `Features.hidden`, where 0 is the output of the embeddings.

    UNIFORM pairs the embeddings too and layer m with m * teacher / student, rounded (Jiao et al. 2020, TinyBERT,
    section 3.2); models of equal depth are paired layer by layer. `student` and `teacher` are numbers of layers.

    Raises:
        BadInput: a model without layers.
    """
    if student < 1 or teacher < 1:
        raise BadInput(f"a student of {student} layers cannot learn hidden states from a teacher of {teacher}")
    if kind is LayerMap.LAST:
        return ((student, teacher),)
    return tuple((layer, (2 * layer * teacher + student) // (2 * student)) for layer in range(student + 1))


def evenly_spread(count: int, of: int) -> tuple[int, ...]:
    """Return `count` layer numbers out of `of`, evenly spread, the first and the last among them (3 of 6: 0, 2, 5)."""
    if count == 1:
        return (0,)
    # Rounded half down, in whole numbers: ceil(x - 1/2) for x = place * (of - 1) / (count - 1).
    return tuple(-((count - 1 - 2 * place * (of - 1)) // (2 * (count - 1))) for place in range(count))
