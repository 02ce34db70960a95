"""Static activation ranges from examples: what each linear layer read, and how much of it the range covers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from compress.quantization.schemes import Range
from compress.settings import Calibration
from models.checkpoint import Checkpoint
from models.encoded import Encoded
from models.errors import BadInput
from models.evaluation import unpadded_batches
from models.network import Network
from models.progress import Progress, silent

BINS: Final = 2048
LEVELS: Final = 128  # of the magnitude: the sign takes the other bit (TensorRT)
TOKENS_PER_BATCH: Final = 4096
Counts = npt.NDArray[np.float64]
Observe = Callable[[str, Tensor], None]


def calibrate(
    checkpoint: Checkpoint,
    paths: Iterable[str],
    data: Encoded,
    *,
    method: Calibration,
    percentile: float = 99.99,
    progress: Progress = silent,
) -> dict[str, Range]:
    """Return the range of what every linear layer of `paths` reads over all rows of `data`.

    Two passes: the extremes first, then a histogram of 2048 bins between them, so the memory does not grow with the
    data. Every range holds zero.

    Raises:
        BadInput: there are no rows.
    """
    if len(data) == 0:
        raise BadInput("static ranges need examples", where="quantize", fix="Give --train FILE.")
    network = checkpoint.network()
    wanted = list(paths)
    extremes: dict[str, tuple[float, float]] = {}

    def widen(path: str, seen: Tensor) -> None:
        low, high = extremes.get(path, (float("inf"), float("-inf")))
        least, most = torch.aminmax(seen)
        extremes[path] = (min(low, float(least)), max(high, float(most)))

    _run(network, data, wanted, widen, progress)
    ranges = {path: Range.around(*extremes[path]) for path in wanted}
    if method is Calibration.MINMAX:
        return ranges
    histograms = {path: np.zeros(BINS) for path in wanted}

    def count(path: str, seen: Tensor) -> None:
        low, high = ranges[path]
        if high > low:
            histograms[path] += torch.histc(seen.float(), bins=BINS, min=low, max=high).double().numpy()

    _run(network, data, wanted, count, progress)
    if method is Calibration.PERCENTILE:
        return {path: percentile_range(histograms[path], ranges[path], percentile) for path in wanted}
    return {path: entropy_range(histograms[path], ranges[path]) for path in wanted}


def percentile_range(histogram: Counts, whole: Range, percentile: float) -> Range:
    """Return the range that covers `percentile` % of the counted values, as much cut off below as above.

    `histogram` counts values in equal bins over `whole`; the range ends at borders of bins.
    """
    total = histogram.sum()
    if total == 0 or whole.high == whole.low:
        return whole
    tail = total * (100.0 - percentile) / 200.0
    borders = np.linspace(whole.low, whole.high, len(histogram) + 1)
    below = np.concatenate([[0.0], np.cumsum(histogram)])
    above = total - below
    low = borders[np.flatnonzero(below <= tail)[-1]]
    high = borders[np.flatnonzero(above <= tail)[0]]
    return Range.around(float(low), float(high))


def entropy_range(histogram: Counts, whole: Range) -> Range:
    """Return the range, clipped to the magnitude at which 128 levels tell most of the histogram.

    For every magnitude that may be the limit, the clipped distribution is compared with itself rounded to 128 levels;
    the least Kullback-Leibler divergence wins (Migacz 2017, TensorRT).
    """
    limit = max(-whole.low, whole.high)
    if histogram.sum() == 0 or limit == 0:
        return whole
    magnitudes = _folded(histogram, whole, limit)
    stops = np.arange(LEVELS, len(magnitudes) + 1)
    divergences = [_divergence(magnitudes, int(stop)) for stop in stops]
    best = limit * float(stops[int(np.argmin(divergences))]) / len(magnitudes)
    return Range.around(max(whole.low, -best), min(whole.high, best))


def _folded(histogram: Counts, whole: Range, limit: float) -> Counts:
    """Return the histogram of the magnitudes, in as many bins from 0 to `limit`."""
    bins = len(histogram)
    borders = np.linspace(whole.low, whole.high, bins + 1)
    centres = np.abs((borders[:-1] + borders[1:]) / 2)
    place = np.minimum((centres / limit * bins).astype(int), bins - 1)
    return np.bincount(place, weights=histogram, minlength=bins).astype(np.float64)


def _divergence(magnitudes: Counts, stop: int) -> float:
    """Return KL(clipped || rounded) when only the first `stop` bins are kept and what lies beyond is clipped."""
    inside = magnitudes[:stop]
    clipped = inside.copy()
    clipped[-1] += magnitudes[stop:].sum()
    level = np.arange(stop) * LEVELS // stop
    sums = np.bincount(level, weights=inside, minlength=LEVELS)
    filled = np.bincount(level, weights=inside > 0, minlength=LEVELS)
    spread = np.divide(sums, filled, out=np.zeros(LEVELS), where=filled > 0)
    rounded = np.where(inside > 0, spread[level], 0.0)
    seen = clipped > 0
    if rounded.sum() == 0 or not (rounded[seen] > 0).all():
        # The last bin holds clipped values where nothing was seen: that distribution cannot be told at all.
        return float("inf")
    p, q = clipped[seen] / clipped.sum(), rounded[seen] / rounded.sum()
    return float((p * np.log(p / q)).sum())


def _run(network: Network, data: Encoded, paths: list[str], observe: Observe, progress: Progress) -> None:
    """Show `observe` what every layer of `paths` reads, batch by batch, without padding."""
    tick, done = progress("calibrate"), 0
    with _observed(network, paths, observe), torch.inference_mode():
        for rows in unpadded_batches(data.lengths, batch_tokens=TOKENS_PER_BATCH, likeness=data.likeness):
            network(**data.batch(rows).inputs)
            done += len(rows)
            tick(done, len(data))


@contextmanager
def _observed(network: Network, paths: list[str], observe: Observe) -> Iterator[None]:
    def hook(path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, given: observe(path, given[0])

    hooks = [network.get_submodule(path).register_forward_pre_hook(hook(path)) for path in paths]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()
