"""Which hidden states of a teacher are learned from, what of it is kept, and how states of another width are compared
with them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.shape import ModelShape
from teacher_student.layer_map import layer_map
from teacher_student.losses import LossWeights
from teacher_student.teacher_cache import HIDDEN_BYTES, LOGIT_BYTES

KEPT_BYTES = 4 * 2**30  # of hidden states, or of logits, that may be kept on disk; more are computed for every batch
DAMPING = 1e-3  # of the mean diagonal: there may be fewer tokens than channels


def hidden_pairs(weights: LossWeights, student: ModelShape, teacher: ModelShape) -> tuple[tuple[int, int], ...]:
    """Return which hidden states are compared, as (student's, teacher's); none when the loss leaves them out."""
    if not weights.hidden:
        return ()
    return layer_map(weights.layer_map, student=len(student.layers), teacher=len(teacher.layers))


def written_pairs(weights: LossWeights, student: ModelShape, teacher: ModelShape) -> tuple[tuple[int, int], ...]:
    """Return which hidden states of decoders are compared, as (student's, teacher's); none where there are none."""
    if not weights.hidden or student.decoder is None or teacher.decoder is None:
        return ()
    return layer_map(weights.layer_map, student=len(student.decoder.layers), teacher=len(teacher.decoder.layers))


def relation_input(teacher: ModelShape) -> int:
    """Return the number of the hidden state that the teacher's last layer reads."""
    return len(teacher.layers) - 1


def kept_hidden(weights: LossWeights, student: ModelShape, teacher: ModelShape, *, tokens: int) -> tuple[int, ...]:
    """Return the numbers of the teacher's hidden states that are kept of so many tokens: all that a loss needs, or none
    where they would take more than KEPT_BYTES, or are of what is read and what is written.
    """
    needed = {theirs for _, theirs in hidden_pairs(weights, student, teacher)}
    needed |= {relation_input(teacher)} if weights.relations else set()
    size = len(needed) * tokens * teacher.hidden_size * HIDDEN_BYTES
    return tuple(sorted(needed)) if size <= KEPT_BYTES and teacher.decoder is None else ()


def keeps_logits(teacher: ModelShape, *, tokens: int) -> bool:
    """Return whether the teacher's logits of so many answers are kept on disk: not where all words would fill it."""
    return teacher.output is None or tokens * teacher.outputs * LOGIT_BYTES <= KEPT_BYTES


def nearest_projection(states: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight (wanted, width) and bias (wanted,) of the linear layer that takes hidden states (tokens, width)
    nearest to the wanted ones (tokens, wanted), by ridge regression.
    """
    states, wanted = states.double(), wanted.double()
    centred = states - states.mean(dim=0)
    gram = centred.t() @ centred
    added = (DAMPING * gram.diagonal().mean()).clamp(min=torch.finfo(torch.float64).tiny)
    weight = torch.linalg.solve(gram + added * torch.eye(len(gram), dtype=gram.dtype), centred.t() @ wanted).t()
    return weight.float(), (wanted.mean(dim=0) - weight @ states.mean(dim=0)).float()
