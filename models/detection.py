"""How a network learns to find objects: who answers for which, and what is wrong with the answer (Carion et al. 2020).

Answers are (images, tokens, kinds + 1 + 4): logits of the kinds and of nothing, and a box. Objects are (images, most,
5): a kind, -1 where there is none, and a box.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from models.assignment import assignment
from models.choice import softened_divergence
from models.shape import BOX

NOTHING = 0.1  # weight of tokens that answer for nothing, which most are
DISTANCE, OVERLAP = 5.0, 2.0  # weights of what is wrong with a box
DEAREST = 1e9


def detection_loss(answers: Tensor, objects: Tensor) -> Tensor:
    """Return the loss of a batch, times its images: the weighted mean of the tokens' cross-entropy, and of the objects'
    mean distance and lack of overlap, each answered for by one token (eq. 1 and 2; section A.2).
    """
    images, tokens, own = answered(answers, objects)
    logits, boxes = answers[..., :-BOX], answers[..., -BOX:]
    nothing = logits.shape[-1] - 1
    kinds = torch.full(logits.shape[:2], nothing, device=logits.device)
    kinds[images, tokens] = objects[images, own, 0].long()
    weights = torch.ones(nothing + 1, device=logits.device)
    weights[nothing] = NOTHING
    total = cross_entropy(logits.flatten(0, 1), kinds.flatten(), weight=weights)
    if len(images):
        total = total + unlike(boxes[images, tokens], objects[images, own, 1:]).mean()
    return total * len(answers)


def detection_divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Return how far answers (tokens, kinds + 1 + 4) are from the teacher's of the same tokens, summed: the divergence
    of softened kinds (Hinton et al. 2015), and of boxes what is wrong with them, as much as the teacher sees something.
    """
    kinds = softened_divergence(student[:, :-BOX], teacher[:, :-BOX], temperature=temperature)
    sure = 1 - teacher[:, :-BOX].softmax(dim=-1)[:, -1]
    return kinds + (sure * unlike(student[:, -BOX:], teacher[:, -BOX:])).sum()


def unlike(first: Tensor, second: Tensor) -> Tensor:
    """Return (...,) what is wrong with boxes (..., 4), given those that are right."""
    return DISTANCE * (first - second).abs().sum(dim=-1) + OVERLAP * (1 - generalized_overlap(first, second))


def generalized_overlap(first: Tensor, second: Tensor) -> Tensor:
    """Return (...,) of boxes (..., 4) of centre, width and height the common area over that of both, less the share of
    the box around both that neither covers (Rezatofighi et al. 2019).
    """
    (one, two), (three, four) = (_corners(boxes) for boxes in (first, second))
    common = (torch.minimum(two, four) - torch.maximum(one, three)).clamp(min=0).prod(dim=-1)
    covered = first[..., 2:].prod(dim=-1) + second[..., 2:].prod(dim=-1) - common
    around = (torch.maximum(two, four) - torch.minimum(one, three)).prod(dim=-1)
    least = torch.finfo(common.dtype).tiny
    return common / covered.clamp(min=least) - (around - covered) / around.clamp(min=least)


def _corners(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2


@torch.no_grad()
def answered(answers: Tensor, objects: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return three lists: an image, one of its tokens, and the object that this token answers for, as cheaply as can be
    (Carion et al. 2020, eq. 1). An image with more objects than tokens leaves the dearest ones without.
    """
    present = objects[..., 0] >= 0  # (images, most)
    kinds = objects[..., 0].long().clamp(min=0)[:, None, :].expand(-1, answers.shape[1], -1)
    shares = answers[..., :-BOX].softmax(dim=-1).gather(2, kinds)  # (images, tokens, most)
    costs = unlike(answers[:, :, None, -BOX:], objects[:, None, :, 1:]) - shares
    # A loss that is no longer a number is said by whoever trains; here it only must not stand in the way.
    tables = np.nan_to_num(costs.transpose(1, 2).double().cpu().numpy(), nan=DEAREST, posinf=DEAREST, neginf=-DEAREST)
    known = present.cpu().numpy()
    found: list[tuple[int, int, int]] = []
    for image, (table, some) in enumerate(zip(tables, known, strict=True)):
        own = np.flatnonzero(some)
        if len(own) > table.shape[1]:
            tokens = np.arange(table.shape[1])
            own = own[assignment(table[own].T)]
        else:
            tokens = assignment(table[own])
        found += [(image, int(token), int(one)) for token, one in zip(tokens, own, strict=True)]
    lists = torch.tensor(found, dtype=torch.long, device=answers.device).reshape(-1, 3)
    return lists[:, 0], lists[:, 1], lists[:, 2]
