"""Static ranges of activations, from texts run through the float network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from compress.quantization.schemes import Range
from compress.settings import Calibration
from models.encoded import Encoded
from models.evaluation import unpadded_batches
from models.network import Network
from models.progress import Progress, silent

BINS = 2048
LEVELS = 256
TOKENS_PER_BATCH = 4096

Counts = npt.NDArray[np.float64]


@final
class Histogram:
    """Counts of values in `BINS` equal bins from -limit to limit; the limit doubles when a value lies outside."""

    def __init__(self) -> None:
        self.limit = 0.0
        self.low = 0.0
        self.high = 0.0
        self.counts: Counts = np.zeros(BINS)

    def add(self, values: Tensor) -> None:
        """Count every value of a tensor."""
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))
        needed = max(-self.low, self.high, 1e-12)
        if self.limit == 0.0:
            self.limit = needed
        while self.limit < needed:
            # Bins merge in pairs into the middle half: counts stay exact, and only the resolution halves.
            middle = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([np.zeros(BINS // 4), middle, np.zeros(BINS // 4)])
            self.limit *= 2
        self.counts += torch.histc(values.float(), bins=BINS, min=-self.limit, max=self.limit).numpy()

    @property
    def edges(self) -> Counts:
        """Return the BINS + 1 borders of the bins."""
        return np.linspace(-self.limit, self.limit, BINS + 1)


def minmax(histogram: Histogram) -> Range:
    """Return the lowest and the highest value seen."""
    return histogram.low, histogram.high


def percentile(histogram: Histogram, percent: float) -> Range:
    """Return the range that leaves out (100 - percent) / 2 % of the values at each end, to the width of a bin."""
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    tail = (1 - percent / 100) / 2
    first = int(np.searchsorted(share, tail, side="right"))
    last = int(np.searchsorted(share, 1 - tail, side="left"))
    edges = histogram.edges
    return max(float(edges[first]), histogram.low), min(float(edges[min(last, BINS - 1) + 1]), histogram.high)


def entropy(histogram: Histogram) -> Range:
    """Return the range whose 256 levels lose the least of the distribution, by KL divergence.

    Migacz, "8-bit inference with TensorRT" (2017): candidate ranges are cut from the outside in; what is cut off is
    counted into the outermost bins, and the rest is compared with itself after it went through the levels.
    """
    edges = histogram.edges
    best, chosen = np.inf, minmax(histogram)
    occupied = np.flatnonzero(histogram.counts)
    first, last = int(occupied[0]), int(occupied[-1]) + 1
    for keep in np.linspace(1.0, 0.25, 49):
        low, high = round(BINS // 2 - (BINS // 2 - first) * keep), round(BINS // 2 + (last - BINS // 2) * keep)
        low, high = max(min(low, BINS // 2), 0), min(max(high, BINS // 2), BINS)
        if high - low < 2:
            break
        loss = _divergence(histogram.counts, low, high)
        if loss < best:
            best, chosen = loss, (float(edges[low]), float(edges[high]))
    return max(chosen[0], histogram.low), min(chosen[1], histogram.high)


def _divergence(counts: Counts, low: int, high: int) -> float:
    kept = counts[low:high].copy()
    reference = kept.copy()
    reference[0] += counts[:low].sum()
    reference[-1] += counts[high:].sum()
    level = np.arange(len(kept)) * LEVELS // max(len(kept), LEVELS)
    filled = kept > 0
    total = np.bincount(level, weights=kept)
    members = np.bincount(level, weights=filled.astype(np.float64))
    spread = np.where(filled, (total / np.maximum(members, 1))[level], 0.0)
    if spread.sum() == 0:
        return float("inf")
    wanted, given = reference / reference.sum(), spread / spread.sum()
    seen = wanted > 0
    return float((wanted[seen] * np.log(wanted[seen] / np.maximum(given[seen], 1e-10))).sum())


def calibrate(
    network: Network,
    layers: Sequence[str],
    data: Encoded,
    *,
    method: Calibration,
    percent: float,
    examples: int,
    progress: Progress = silent,
) -> dict[str, Range]:
    """Return the range of the input of each layer, over the first `examples` rows of `data`.

    Layers that read the same tensor (query, key and value) get the same range.
    """
    histograms = {path: Histogram() for path in layers}
    rows = min(examples, len(data))
    report = progress("calibrate")
    with _watching(network, histograms), torch.inference_mode():
        done = 0
        for batch_rows in unpadded_batches(data.lengths[:rows], batch_tokens=TOKENS_PER_BATCH):
            batch = data.batch(batch_rows)
            network(batch.input_ids, None, batch.token_type_ids)
            done += len(batch_rows)
            report(done, rows)
    methods: Mapping[Calibration, Callable[[Histogram], Range]] = {
        Calibration.MINMAX: minmax,
        Calibration.PERCENTILE: lambda histogram: percentile(histogram, percent),
        Calibration.ENTROPY: entropy,
    }
    return {path: methods[method](histogram) for path, histogram in histograms.items()}


@contextmanager
def _watching(network: Network, histograms: Mapping[str, Histogram]) -> Iterator[None]:
    def hook(path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, inputs: histograms[path].add(inputs[0])

    handles = [network.get_submodule(path).register_forward_pre_hook(hook(path)) for path in histograms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
