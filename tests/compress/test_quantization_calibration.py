from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import random_rows, tiny_checkpoint

from compress.quantization.calibration import calibrate, entropy_range, percentile_range
from compress.quantization.schemes import Range, linear_paths
from compress.settings import Calibration
from models.errors import BadInput


def histogram(values: np.ndarray) -> tuple[np.ndarray, Range]:
    whole = Range.around(float(values.min()), float(values.max()))
    counts, _ = np.histogram(values, bins=2048, range=whole)
    return counts.astype(np.float64), whole


def rounded(values: np.ndarray, found: Range) -> np.ndarray:
    return (np.clip(np.round(values / found.scale) + found.zero_point, 0, 255) - found.zero_point) * found.scale


def test_percentile_of_uniform_values() -> None:
    found = percentile_range(*histogram(np.linspace(-1, 3, 400_001)), 90.0)
    assert found.low == pytest.approx(-0.8, abs=0.004)
    assert found.high == pytest.approx(2.8, abs=0.004)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(50.5, 100.0), st.floats(-3, 3))
def test_percentile_covers_what_it_says(seed: int, percentile: float, centre: float) -> None:
    values = np.random.default_rng(seed).normal(centre, 1, 2000)
    counts, whole = histogram(values)
    found = percentile_range(counts, whole, percentile)
    inside = ((values >= found.low - 1e-9) & (values <= found.high + 1e-9)).mean()
    assert inside >= percentile / 100 - 1e-9
    assert whole.low <= found.low <= 0 <= found.high <= whole.high


def test_all_of_it_is_the_extremes() -> None:
    counts, whole = histogram(np.random.default_rng(0).normal(0, 1, 5000))
    assert percentile_range(counts, whole, 100.0) == pytest.approx(whole)


def test_entropy_cuts_outliers_off_and_keeps_what_is_even() -> None:
    random = np.random.default_rng(0)
    bulk = random.normal(0, 1, 200_000)
    counts, whole = histogram(np.concatenate([bulk, [60.0]]))
    found = entropy_range(counts, whole)
    assert 3 < found.high < 12
    # One value in 200,000 is given up so that the others are told apart.
    assert np.square(rounded(bulk, found) - bulk).mean() < 0.1 * np.square(rounded(bulk, whole) - bulk).mean()
    counts, whole = histogram(random.uniform(-1, 1, 200_000))
    assert entropy_range(counts, whole).high > 0.9


def test_a_range_of_nothing_stays_usable() -> None:
    nothing = Range.around(0.0, 0.0)
    for found in (percentile_range(np.zeros(2048), nothing, 99.0), entropy_range(np.zeros(2048), nothing)):
        assert found == nothing
        assert (found.scale, found.zero_point) == (1.0, 0)


def test_one_sided_values_use_all_levels() -> None:
    assert Range.around(0.2, 5.1).zero_point == 0
    assert Range.around(-5.1, -0.2).zero_point == 255
    assert Range.around(0.2, 5.1).scale == pytest.approx(0.02)


@pytest.mark.parametrize("method", Calibration)
def test_ranges_are_of_what_the_layer_reads(method: Calibration) -> None:
    torch.set_num_threads(1)
    checkpoint, data = tiny_checkpoint(), random_rows(30)
    paths = linear_paths(checkpoint.shape)
    ranges = calibrate(checkpoint, paths, data, method=method, percentile=99.0)
    network = checkpoint.network()
    seen: dict[str, list[torch.Tensor]] = {path: [] for path in paths}
    for path in paths:
        hook = lambda module, given, path=path: seen[path].append(given[0].flatten())  # noqa: E731
        network.get_submodule(path).register_forward_pre_hook(hook)
    for row in range(len(data)):
        batch = data.batch(np.array([row]))
        with torch.inference_mode():
            network(**batch.inputs)
    for path in paths:
        values = torch.cat(seen[path])
        low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
        found = ranges[path]
        if method is Calibration.MINMAX:
            assert found == pytest.approx((low, high), rel=1e-4)
        assert low - 1e-4 <= found.low <= 0 <= found.high <= high + 1e-4
        assert found.high > found.low


def test_calibration_needs_examples() -> None:
    with pytest.raises(BadInput, match="Give --train"):
        calibrate(tiny_checkpoint(), ["head.dense"], random_rows(0), method=Calibration.MINMAX)
