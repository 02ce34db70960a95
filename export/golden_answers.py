"""Examples of what a bundle answers, which its graph must answer again anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import numpy as np
import onnxruntime

from export.manifest import GOLDEN_FILE, GoldenExample
from export.session import Arrays, Floats, run, run_for
from export.text.ports import LABEL
from models.errors import BadFile, BadInput, Mismatch
from models.shape import ModelShape

# A processor may add in another order; in int8 a rounding may then fall the other way.
FLOAT_TOLERANCE: Final = 1e-3
INT8_TOLERANCE: Final = 5e-2
INT8_VECTOR_TOLERANCE: Final = 2e-2  # of the numbers of an embedding of length 1, which are small
Answering: TypeAlias = Callable[[Arrays], Floats]


def answered_example(session: onnxruntime.InferenceSession, inputs: Arrays) -> GoldenExample:
    """Return the example of a network's inputs, a batch of one: what the model gives for them.

    Raises:
        Mismatch: it is not finite.
    """
    logits = [float(value) for value in run(session, inputs).reshape(-1)]
    if not np.isfinite(logits).all():
        what = ", ".join(f"{name} {value.reshape(-1)[:8].tolist()}" for name, value in inputs.items())
        raise Mismatch(f"the model gives {logits} for {what}...", where="golden examples")
    return GoldenExample.of(inputs, logits)


def answering_gap(answer: Answering, example: GoldenExample) -> float:
    """Return the largest difference between an example's expected logits and what is answered.

    Raises:
        BadFile: the example's inputs are not whole or not the model's, or its logits or token types are not as many.
    """
    try:
        logits = answer(example.arrays()).reshape(-1)
    except BadInput as error:
        raise BadFile(f"an example does not fit the model ({error})", where=GOLDEN_FILE) from None
    if len(logits) != len(example.logits):
        raise BadFile("an example's lengths do not fit together or do not fit the model", where=GOLDEN_FILE)
    return float(np.abs(logits - np.asarray(example.logits)).max())


def right_label(
    session: onnxruntime.InferenceSession, example: GoldenExample, labels: Sequence[str], tolerance: float
) -> bool:
    """Return whether a graph that names its answer names the likeliest of an example, or one as likely.

    Raises:
        BadFile: the runtime cannot tell.
    """
    try:
        (named,) = run_for(session, [LABEL], example.arrays())
    except BadInput as error:
        raise BadFile(f"an example does not fit the model ({error})", where=GOLDEN_FILE) from None
    logits = dict(zip(labels, example.logits, strict=False))
    return logits.get(str(named[0]), -np.inf) >= max(example.logits) - 2 * tolerance


def tolerance_of(shape: ModelShape) -> float:
    """Return how far a right output may be from a golden one, on another processor."""
    of_int8 = INT8_VECTOR_TOLERANCE if shape.head is not None and shape.head.normalized else INT8_TOLERANCE
    return of_int8 if shape.int8 else FLOAT_TOLERANCE
