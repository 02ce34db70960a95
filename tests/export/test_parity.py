from __future__ import annotations

import math

import numpy as np
import pytest
from support.networks import quantized_network, random_network, tiny_shape

from export import parity
from export.lower import lower
from export.target import CPU
from models.errors import BadInput, Mismatch
from models.kinds import Int8Form

NATIVE = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 4.0]], dtype=np.float32)


def test_equal_logits_are_equal() -> None:
    found = parity.of_logits(NATIVE, NATIVE.copy())
    assert (found.examples, found.max_abs, found.p95_abs, found.same_top) == (4, 0.0, 0.0, 1.0)
    found.check(parity.FLOAT_BOUND)


def test_the_worst_example_is_named() -> None:
    runtime = NATIVE.copy()
    runtime[2] = [0.5, 1.0]
    found = parity.of_logits(NATIVE, runtime)
    assert (found.worst, found.max_abs, found.same_top) == (2, 2.5, 0.75)
    with pytest.raises(Mismatch, match=r"example 2: 3\.0000 0\.0000 in PyTorch, 0\.5000 1\.0000 in ONNX Runtime"):
        found.check(parity.FLOAT_BOUND)


def test_int8_forgives_a_single_example_but_not_many() -> None:
    native = np.tile(np.array([[5.0, 0.0]], dtype=np.float32), (100, 1))
    one, many = native.copy(), native.copy()
    one[7, 0] += 0.5
    many[:6, 0] += 0.06
    parity.of_logits(native, one).check(parity.INT8_BOUND)
    with pytest.raises(Mismatch, match="95 % of logits"):
        parity.of_logits(native, many).check(parity.INT8_BOUND)


def test_a_changed_label_counts_even_when_logits_are_close() -> None:
    native = np.tile(np.array([[0.001, 0.0]], dtype=np.float32), (100, 1))
    runtime = native.copy()
    runtime[0] = [0.0, 0.001]
    with pytest.raises(Mismatch, match=r"99\.00%"):
        parity.of_logits(native, runtime).check(parity.INT8_BOUND)


def test_not_a_number_is_a_mismatch() -> None:
    runtime = NATIVE.copy()
    runtime[1, 1] = math.nan
    with pytest.raises(Mismatch):
        parity.of_logits(NATIVE, runtime).check(parity.INT8_BOUND)


def test_another_number_of_labels_is_a_mismatch() -> None:
    with pytest.raises(Mismatch, match="shape"):
        parity.of_logits(NATIVE, NATIVE[:, :1])


def test_another_network_is_found_out() -> None:
    model = lower(random_network(tiny_shape(), seed=1), CPU).SerializeToString()
    batch = {"input_ids": np.arange(8, dtype=np.int64)[None]}
    with pytest.raises(Mismatch):
        parity.compare(random_network(tiny_shape(), seed=2), model, [batch]).check(parity.FLOAT_BOUND)


def test_no_example_is_bad_input() -> None:
    network = random_network(tiny_shape())
    with pytest.raises(BadInput, match="at least one example"):
        parity.compare(network, lower(network, CPU).SerializeToString(), [])


def test_the_bound_follows_the_network() -> None:
    network = random_network(tiny_shape())
    assert parity.bound_for(network) is parity.FLOAT_BOUND
    assert parity.bound_for(quantized_network(network, Int8Form.DYNAMIC)) is parity.INT8_BOUND
