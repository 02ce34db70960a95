"""What a student is told about its teacher, as formulas over tensors.

Every formula returns a Term: a sum, and the number of examples or tokens summed over. Means are taken by whoever
trains, over the whole batch, so that a batch shared among processes gives the gradient of the whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, softmax

from models.errors import BadInput
from models.task import Task
from teacher_student.layer_map import LayerMap


class Term(NamedTuple):
    """One part of a loss: `weight` * `total` / `size`, where totals and sizes add up over the parts of a batch."""

    total: Tensor
    size: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class LossWeights:
    """What a student learns from, as weights of the summed loss; 0 leaves a part out.

    kl: softened logits. mse: logits. hidden: hidden states, paired by `layer_map`. relations: query, key and value
    relations of the last layers in at most `relation_heads` heads. labels: the task's own loss.
    """

    kl: float = 0.0
    temperature: float = 2.0
    mse: float = 1.0
    hidden: float = 0.0
    relations: float = 0.0
    labels: float = 0.0
    layer_map: LayerMap = LayerMap.UNIFORM
    relation_heads: int = 12

    def __post_init__(self) -> None:
        parts = (self.kl, self.mse, self.hidden, self.relations, self.labels)
        if min(parts) < 0 or not any(parts):
            raise BadInput("a loss needs weights of 0 or more, one of them above 0", where="losses")
        if self.temperature <= 0 or self.relation_heads < 1:
            raise BadInput("temperature and relation_heads must be above 0", where="losses")


def logits_kl(task: Task, student: Tensor, teacher: Tensor, *, temperature: float) -> Term:
    """Return the task's divergence of softened outputs (answers, labels), summed over them."""
    return Term(task.divergence(student.float(), teacher.float(), temperature=temperature), len(student))


def logits_mse(student: Tensor, teacher: Tensor) -> Term:
    """Return the squared error of logits (answers, labels), the mean over labels summed over answers."""
    return Term((student.float() - teacher.float()).square().mean(dim=-1).sum(), len(student))


def hidden_mse(student: Tensor, teacher: Tensor) -> Term:
    """Return the squared error of hidden states (tokens, width), the mean over the width summed over tokens."""
    return Term((student.float() - teacher.float()).square().mean(dim=-1).sum(), len(student))


def hard_labels(task: Task, logits: Tensor, targets: Tensor) -> Term:
    """Return the task's loss summed over the answers that are labelled; the others add nothing."""
    known = ~targets.isnan() if targets.is_floating_point() else targets >= 0
    labelled = int(known.flatten(1).all(dim=1).sum()) if known.ndim > 1 else int(known.sum())
    return Term(task.loss(logits.float(), targets), labelled)


def answers_of(logits: Tensor, answered: Tensor | None) -> Tensor:
    """Return what a head gives as (answers, k): of tokens, (batch, time, k), those that are `answered`, or else all."""
    return logits.flatten(0, -2) if answered is None else logits[answered]


def expected_of(targets: Tensor, answered: Tensor | None) -> Tensor:
    """Return what is expected of the tokens that are `answered`, (answers, k); what belongs to rows as it is."""
    return targets if answered is None else targets[answered]


def common_relation_heads(most: int, *widths: int) -> int:
    """Return the largest number of relation heads up to `most` that divides every width.

    Raises:
        BadInput: a width is 0, that is, a layer has no attention head left.
    """
    if not all(widths):
        raise BadInput(
            "the last layer has no attention head, so it has no relations to learn",
            where="relations loss",
            fix="Set the weight of relations to 0.",
        )
    shared = math.gcd(*widths)
    return max(heads for heads in range(1, min(most, shared) + 1) if shared % heads == 0)


def relation_kl(student: Tensor, teacher: Tensor, mask: Tensor, *, heads: int) -> Term:
    """Return KL(teacher || student) of the relations between tokens (Wang et al. 2021, MiniLMv2, section 3.1).

    `student` (batch, time, width) and `teacher` (batch, time, other width) are concatenated heads of queries, keys or
    values; both are split anew into `heads` relation heads, and the relation is softmax(X X^T / sqrt(head size)).
    `mask` (batch, time) is True for tokens; padding is neither attended to nor counted. The sum is over tokens and the
    mean over heads.
    """
    wanted = _relation_scores(teacher, mask, heads)
    got = _relation_scores(student, mask, heads)
    shares = softmax(wanted, dim=-1)  # (batch, heads, time, time)
    # Padding has a share of exactly 0 but a log of -inf, and 0 * inf is not a number.
    difference = (log_softmax(wanted, dim=-1) - log_softmax(got, dim=-1)).masked_fill(~mask[:, None, None, :], 0.0)
    divergence = (shares * difference).sum(dim=-1).mean(dim=1)  # (batch, time)
    return Term((divergence * mask).sum(), int(mask.sum()))


def _relation_scores(projected: Tensor, mask: Tensor, heads: int) -> Tensor:
    batch, time, width = projected.shape
    split = projected.float().view(batch, time, heads, width // heads).transpose(1, 2)  # (batch, heads, time, size)
    # Autocast would round the products to bf16, whose error is of the size of the differences that are learned.
    with torch.autocast(projected.device.type, enabled=False):
        scores = split @ split.transpose(-1, -2) / math.sqrt(width // heads)
    return scores.masked_fill(~mask[:, None, None, :], torch.finfo(scores.dtype).min)
