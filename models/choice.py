"""One class out of several: its probability, and how far two models are from giving the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.errors import BadInput
from models.shape import HeadShape

if TYPE_CHECKING:
    from torch import Tensor


def require_choice(head: HeadShape, *, asked: str, of: str, where: str) -> None:
    """Raise BadInput where a head gives nothing to choose from; `asked` is the task, `of` what is classified."""
    if len(head.labels) < 2 or head.tokens or head.boxes:
        raise BadInput(
            f"a classifier of {of}s needs two labels, and this head has {len(head.labels)} for each "
            f"{'token' if head.tokens else 'box' if head.boxes else of}",
            where=where,
            fix=head.unlike(asked),
        )


def probabilities(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the softmax of logits (answers, classes)."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: npt.NDArray[np.float32] = raised / raised.sum(axis=-1, keepdims=True)
    return shares


def top_labels(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return the number of the top label of every row of logits (rows, classes)."""
    return np.asarray(logits.argmax(axis=1), dtype=np.int64)


def top_is_right(logits: npt.NDArray[np.float32], targets: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return 1 where the top label is the target, else 0, and both classes' numbers; (rows, 3)."""
    given = top_labels(logits)
    return np.stack([given == targets, given, targets], axis=1).astype(np.float64)


def likeliest(logits: npt.NDArray[np.float32], labels: Sequence[str]) -> tuple[str, dict[str, float]]:
    """Return the likeliest label and the probability of every label, for logits (classes,)."""
    shares = probabilities(logits[None])[0]
    return labels[int(shares.argmax())], {label: float(share) for label, share in zip(labels, shares, strict=True)}


def class_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of logits (rows, classes), summed over the rows with a target."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits, targets, ignore_index=-1, reduction="sum")


def softened_divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Return T^2 * KL(teacher || student) of softened logits (answers, classes), summed over answers.

    T^2 keeps the gradient's size when the temperature changes. Source: Hinton et al. 2015.
    """
    from torch.nn.functional import kl_div, log_softmax

    ours, theirs = (log_softmax(logits / temperature, dim=-1) for logits in (student, teacher))
    return kl_div(ours, theirs, reduction="sum", log_target=True) * temperature**2
