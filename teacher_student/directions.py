"""The main directions of a teacher's embeddings: fewer numbers that keep its cosines."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from models.checkpoint import Checkpoint
from models.encoded import Encoded
from models.errors import BadInput
from models.evaluation import evaluate_logits
from models.hugging_face import PROJECTION
from models.shape import ModelShape

MOST_TEXTS = 20_000  # that directions are looked for in: fifty for each of a teacher's 384
WEIGHT, BIAS = PROJECTION


def narrower_head(student: ModelShape, teacher: ModelShape, numbers: int) -> ModelShape:
    """Return the student's shape with an embedding of so many numbers.

    Raises:
        BadInput: the student gives no embedding, or one of fewer numbers.
    """
    head = student.head
    if head is None or head.labels:
        raise BadInput("only a sentence embedding has dimensions", where="distill.dimensions", fix="Leave it out.")
    most = min(teacher.outputs, student.hidden_size)
    if numbers > most:
        raise BadInput(f"{numbers} numbers of an embedding that has {most}", where="distill.dimensions")
    projected = numbers != student.hidden_size or student.hidden_size == teacher.hidden_size
    return replace(student, head=replace(head, width=numbers, projected=projected))


def principal_directions(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Return the directions of embeddings (texts, width) of length 1, a row each, the one with most of their squared
    length first, and what share of it each has, (width).

    Of all projections to k numbers, that on the first k rows keeps the cosines of these texts best (Eckart and Young
    1936). Nothing is centred and no direction is scaled, as whitening would (Su et al. 2021): both change cosines.
    """
    products = embeddings.T @ embeddings
    sizes, directions = torch.linalg.eigh(products)  # by rising size
    rows = directions.T.flip(0)
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
    shares = sizes.flip(0).clamp(min=0)
    return rows * largest.sign(), shares / shares.sum()  # the sign is free; so it is always the same


def in_main_directions(
    student: Checkpoint, teacher: Checkpoint, data: Encoded, *, seed: int
) -> tuple[Checkpoint, float | None]:
    """Return the student with the main directions of the teacher's embeddings of these texts (of MOST_TEXTS drawn from
    `seed` where there are more) as the projection of its head, and the share of the squared length that they keep.

    A student of another hidden size has its own directions: it is returned as it is, with None.
    """
    head = student.shape.head
    if head is None or not head.projected or student.shape.hidden_size != teacher.shape.hidden_size:
        return student, None
    given = torch.from_numpy(evaluate_logits(teacher.network(), data.drawn(MOST_TEXTS, seed=seed))).double()
    directions, shares = principal_directions(torch.nn.functional.normalize(given, dim=-1))
    kept = directions[: head.width]
    found = {WEIGHT: kept, BIAS: torch.zeros(head.width)}
    if WEIGHT in teacher.weights:  # the teacher's numbers are directions themselves
        found = {WEIGHT: kept @ teacher.weights[WEIGHT].double(), BIAS: kept @ teacher.weights[BIAS].double()}
    projection = {name: value.float().contiguous() for name, value in found.items()}
    return replace(student, weights={**student.weights, **projection}), float(shares[: head.width].sum())


def in_directions_of(student: Checkpoint, teacher: Checkpoint) -> Checkpoint:
    """Return the teacher answering in the directions of the student's embedding, where these are directions of its own
    hidden states; else as it is.
    """
    head = student.shape.head
    if head is None or not head.projected or student.shape.hidden_size != teacher.shape.hidden_size:
        return teacher
    projection = {name: student.weights[name] for name in (WEIGHT, BIAS)}
    return replace(teacher, shape=replace(teacher.shape, head=head), weights={**teacher.weights, **projection})
