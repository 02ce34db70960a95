"""One class out of several: its probability, and how far two models are from giving the same ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor


def probabilities(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the softmax of logits (answers, classes)."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: npt.NDArray[np.float32] = raised / raised.sum(axis=-1, keepdims=True)
    return shares


def softened_divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Return T^2 * KL(teacher || student) of softened logits (answers, classes), summed over answers.

    T^2 keeps the gradient's size when the temperature changes. Source: Hinton et al. 2015.
    """
    from torch.nn.functional import kl_div, log_softmax

    ours, theirs = (log_softmax(logits / temperature, dim=-1) for logits in (student, teacher))
    return kl_div(ours, theirs, reduction="sum", log_target=True) * temperature**2
