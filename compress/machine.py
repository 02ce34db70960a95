"""The machine that something is measured on, and the calls that are timed on it."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import onnxruntime
import psutil
import torch

from compress.record import Environment
from export.latency import Call
from export.processor import processor
from export.text.feeding import row_texts
from models.encoded import Encoded


def timed_rows(data: Encoded, count: int) -> npt.NDArray[np.int64]:
    """Return the numbers of `count` rows whose lengths have the distribution of the data's: evenly spaced ranks."""
    order = np.argsort(data.lengths, kind="stable")
    count = min(count, len(order))
    ranks = ((np.arange(count) + 0.5) * len(order) / count).astype(np.int64)
    # The order in which they are run must not be by length, or caches would see a trend.
    return np.random.default_rng(0).permutation(order[ranks])


def same_rows(data: Encoded, reference: Encoded, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the rows of `data` that hold what these rows of the reference do. Where tokenizers differ an example may
    have more rows in one of them: then it is the one in the same place, or the last.
    """
    if not len(reference.examples):
        return rows
    examples = reference.examples[rows]
    places = rows - np.searchsorted(reference.examples, examples)
    first, last = (np.searchsorted(data.examples, examples, side=side) for side in ("left", "right"))
    return np.minimum(first + places, last - 1)


def calls(data: Encoded, rows: npt.NDArray[np.int64], *, texts: bool = False) -> list[Call]:
    """Return the calls of these rows, each alone, in numbers or as the `texts` themselves."""
    return [Call(int(data.lengths[row]), row_texts(data, int(row)) if texts else data.single(int(row))) for row in rows]


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let PyTorch use `count` threads, or as many as it chooses where None."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def environment(threads: int) -> Environment:
    """Return the machine and software that this process runs on."""
    here = processor()
    return Environment(
        cpu=here.name,
        cores=psutil.cpu_count(logical=True) or 1,
        threads=threads,
        os=platform.platform(terse=True),
        python=platform.python_version(),
        torch=torch.__version__,
        onnxruntime=onnxruntime.__version__,
        flags=here.told_flags,
    )
