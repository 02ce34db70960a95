"""The native network against the runtime, example by example."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, final

import numpy as np
import torch

from export.session import Arrays, Floats, open_session, run
from models.errors import BadInput, Mismatch
from models.network import Network


@final
@dataclass(frozen=True, slots=True)
class Bound:
    """How far apart two computations may be: `max_abs` or, on 95 % of examples, `p95_abs`; and the same top label."""

    max_abs: float
    p95_abs: float
    same_top: float


FLOAT_BOUND: Final = Bound(max_abs=1e-4, p95_abs=1e-4, same_top=0.995)
# One rounding that falls the other way moves an int8 result by a level, so single examples may be further apart.
INT8_BOUND: Final = Bound(max_abs=float("inf"), p95_abs=0.05, same_top=0.995)
# The largest of many unnamed numbers is not an answer; those of a unit vector are small.
FLOAT_VECTOR_BOUND: Final = Bound(max_abs=1e-4, p95_abs=1e-4, same_top=0.0)
INT8_VECTOR_BOUND: Final = Bound(max_abs=float("inf"), p95_abs=0.02, same_top=0.0)


@final
@dataclass(frozen=True, slots=True)
class Parity:
    """Differences between native and runtime logits over `examples`; `worst` is the index of the largest."""

    examples: int
    max_abs: float
    p95_abs: float
    same_top: float
    worst: int
    worst_native: tuple[float, ...]
    worst_runtime: tuple[float, ...]

    def check(self, bound: Bound) -> None:
        """Compare with a bound.

        Raises:
            Mismatch: it does not hold; the message shows the worst example.
        """
        problems = []
        if not self.max_abs <= bound.max_abs:
            problems.append(f"logits differ by up to {self.max_abs:.2g}, allowed {bound.max_abs:.2g}")
        if not self.p95_abs <= bound.p95_abs:
            problems.append(f"95 % of logits are within {self.p95_abs:.2g}, allowed {bound.p95_abs:.2g}")
        if not self.same_top >= bound.same_top:
            problems.append(f"the top label agrees on {self.same_top:.2%}, wanted {bound.same_top:.1%}")
        if problems:
            native, runtime = (" ".join(f"{x:.4f}" for x in row[:8]) for row in (self.worst_native, self.worst_runtime))
            raise Mismatch(
                "; ".join(problems),
                where=f"PyTorch and ONNX Runtime on {self.examples} examples",
                fix=f"The worst is example {self.worst}: {native} in PyTorch, {runtime} in ONNX Runtime.",
            )


def bound_for(network: Network) -> Bound:
    """Return the bound that an export of this network must keep."""
    if network.shape.labels:
        return INT8_BOUND if network.shape.int8 else FLOAT_BOUND
    return INT8_VECTOR_BOUND if network.shape.int8 else FLOAT_VECTOR_BOUND


def compare(network: Network, model: Path | bytes, batches: Iterable[Arrays], *, threads: int = 1) -> Parity:
    """Return how far `model` in the runtime is from `network`; arguments and errors as in `compare_answers`."""
    return compare_answers(network, partial(run, open_session(model, threads=threads)), batches)


def compare_answers(network: Network, answer: Callable[[Arrays], Floats], batches: Iterable[Arrays]) -> Parity:
    """Return how far what `answer` gives is from `network`, on batches of named arrays (batch, ...).

    Int8 networks take one activation scale per example, the runtime one per call: give them batches of one.

    Raises:
        BadInput: there is no example.
    """
    network.eval()
    native, runtime = [], []
    for batch in batches:
        native.append(native_logits(network, batch))
        runtime.append(answer(batch))
    if not native:
        raise BadInput("parity needs at least one example")
    return of_logits(_rows(native), _rows(runtime))


def native_logits(network: Network, batch: Arrays) -> Floats:
    """Return the network's logits for named arrays (batch, ...)."""
    with torch.inference_mode():
        output: torch.Tensor = network(**{name: torch.from_numpy(np.asarray(value)) for name, value in batch.items()})
    return output.numpy()


def of_logits(native: Floats, runtime: Floats) -> Parity:
    """Return the differences between two arrays (examples, values)."""
    if native.shape != runtime.shape:
        raise Mismatch(f"PyTorch gives {native.shape}, ONNX Runtime {runtime.shape}", where="shape of the logits")
    gap = np.abs(native.astype(np.float64) - runtime).max(axis=1)
    gap = np.where(np.isnan(gap), np.inf, gap)
    worst = int(gap.argmax())
    return Parity(
        examples=len(gap),
        max_abs=float(gap[worst]),
        p95_abs=float(np.quantile(gap, 0.95, method="higher")),
        same_top=float((native.argmax(axis=1) == runtime.argmax(axis=1)).mean()),
        worst=worst,
        worst_native=tuple(float(x) for x in native[worst]),
        worst_runtime=tuple(float(x) for x in runtime[worst]),
    )


def _rows(parts: list[Floats]) -> Floats:
    """Return (examples, values); without a head every token's hidden state is an example."""
    return np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts])
