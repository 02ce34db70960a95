"""Windows in blocks and linear attention in the graph: equal to the native network, and linear in the length."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from support.images import image_shape
from support.networks import EFFICIENT, EVEN, TURNED, quantized_network, random_network, tiny_shape

from export import parity
from export.lower import lower
from export.places import LEAST_BLOCK, MASKED_WINDOWS
from export.session import feeds, open_session
from export.target import CPU, TARGETS, Target
from models.kinds import Int8Form, Reads
from models.shape import HeadShape, ImageShape, LayerShape, ModelShape, RelativeBias

targets = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
LONG: dict[str, Any] = {"max_positions": 300}
WIDE = 20  # a window whose blocks are not full ones
EDGES = (1, 2, WIDE, WIDE + 1, LEAST_BLOCK, LEAST_BLOCK + 1, 2 * LEAST_BLOCK, 131, 300)
FIRST = (EFFICIENT[1], EFFICIENT[2], EFFICIENT[0])
SHAPES = {
    "window": tiny_shape((LayerShape(4, 8, 9, window=WIDE), LayerShape(3, 8, 9, window=3)), **LONG),
    "global tokens": tiny_shape(EFFICIENT, **LONG),
    "global tokens, last": tiny_shape((LayerShape(2, 8, 9, linear=True), EFFICIENT[0]), **LONG),
    "hidden states": tiny_shape(EFFICIENT, head=None, **LONG),
    "masks": tiny_shape((replace(EFFICIENT[0], window=75), LayerShape(2, 8, 9, window=300)), head=None, **LONG),
    "distances": tiny_shape((*EFFICIENT, *EVEN[:1]), relative=RelativeBias(8, 12), head=None, **LONG),
    "distances, first token": tiny_shape(FIRST, relative=RelativeBias(8, 12), **LONG),
    "distances, masks": tiny_shape((replace(EFFICIENT[0], window=75),), relative=RelativeBias(), head=None, **LONG),
    "turned": tiny_shape(
        tuple(replace(layer, rotary=50.0) for layer in EFFICIENT),
        **TURNED,
        **LONG,
        head=HeadShape(("O", "B-x"), reads=Reads.EACH, normed=True),
    ),
    "turned, linear, first token": tiny_shape((replace(EFFICIENT[2], rotary=50.0),) * 2, **TURNED, **LONG),
    "no heads": tiny_shape((replace(EFFICIENT[0], heads=0), replace(EFFICIENT[2], heads=0)), **LONG),
}


def batch(rows: int, time: int) -> dict[str, npt.NDArray[np.int64]]:
    """Return rows of which all but the first are padded, the last of three to less than a block."""
    mask = np.ones((rows, time), dtype=np.int64)
    for row in range(1, rows):
        mask[row, max(1, time // (3 * row)) :] = 0
    ids = np.random.default_rng(time).integers(0, 50, (rows, time))
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros((rows, time), dtype=np.int64)}


@targets
@pytest.mark.parametrize("name", SHAPES)
def test_the_graph_computes_what_the_network_does(name: str, target: Target) -> None:
    network = random_network(SHAPES[name])
    model = lower(network, target).SerializeToString()
    for time in EDGES:
        found = parity.compare(network, model, [batch(1, time), batch(3, time)])
        assert found.max_abs < 1e-4, time
    assert max(abs(value) for value in found.worst_native) > 1e-2


@targets
@pytest.mark.parametrize("window", [3, 20])
@pytest.mark.parametrize("head", [None, HeadShape(("a", "b"), dense=False)], ids=["no head", "first token"])
def test_images_have_no_padding(window: int, head: HeadShape | None, target: Target) -> None:
    layers = (replace(EFFICIENT[0], window=window), EFFICIENT[2], LayerShape(2, 8, 9, window=window))
    network = random_network(image_shape(layers, image=ImageShape(28, 28, 4, channels=1), head=head))
    model = lower(network, target).SerializeToString()
    pixels = np.random.default_rng(0).normal(size=(3, 1, 28, 28)).astype(np.float32)
    assert parity.compare(network, model, [{"pixel_values": pixels}]).max_abs < 1e-4


@targets
@pytest.mark.parametrize("form", [Int8Form.DYNAMIC, Int8Form.STATIC])
@pytest.mark.parametrize("name", ["window", "global tokens", "distances, first token", "turned"])
def test_int8_computes_what_the_network_does(name: str, form: Int8Form, target: Target) -> None:
    network = quantized_network(random_network(SHAPES[name]), form)
    found = parity.compare(network, lower(network, target).SerializeToString(), [batch(1, time) for time in EDGES])
    found.check(parity.INT8_BOUND)


def test_what_lies_outside_a_window_is_not_read() -> None:
    network = random_network(tiny_shape((LayerShape(2, 8, 9, window=5),), head=None, type_vocab_size=0, **LONG))
    session = open_session(lower(network, CPU).SerializeToString(), threads=1)
    ids, places = batch(1, 200)["input_ids"], np.arange(200)
    other = ids.copy()
    other[0, 100] = (ids[0, 100] + 1) % 50
    before, after = (
        session.run(None, {"input_ids": row, "attention_mask": np.ones_like(row)})[0] for row in (ids, other)
    )
    changed = np.abs(before - after).max(axis=2)[0] > 1e-6
    assert places[changed].tolist() == list(range(95, 106))


def elements(model: onnx.ModelProto, time: int) -> list[int]:
    """Return how many numbers every value of a graph holds that a text of this length makes."""
    whole = onnx.ModelProto.FromString(model.SerializeToString())
    named = {port.name for port in whole.graph.output}
    for node in whole.graph.node:
        whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name not in named)
    session = open_session(whole.SerializeToString(), threads=1)
    row = batch(1, time)
    return [np.size(value) for value in session.run(None, feeds(session, row))]


def growth(shape: ModelShape, *, time: int = 1024) -> float:
    """Return how many times more the largest value of a graph holds for a text that is twice as long."""
    model = lower(random_network(shape), TARGETS["mobile"])
    return max(elements(model, 2 * time)) / max(elements(model, time))


@pytest.mark.parametrize("reads", [Reads.FIRST, Reads.EACH])
@pytest.mark.parametrize("layer", EFFICIENT, ids=["window and global tokens", "window", "linear"])
@pytest.mark.parametrize("relative", [None, RelativeBias()], ids=["", "distances"])
def test_twice_the_length_is_twice_the_work(layer: LayerShape, reads: Reads, relative: RelativeBias | None) -> None:
    head = HeadShape(("a", "b"), reads=reads)
    shape = tiny_shape((layer, layer), max_positions=2048, head=head, relative=relative)
    assert growth(shape) == pytest.approx(2, abs=0.1)
    full = replace(shape, layers=(LayerShape(layer.heads, layer.head_size, layer.ffn),) * 2)
    assert growth(full, time=256) == 4  # whatever the length: its scores are the largest soon


def test_a_text_of_a_few_windows_is_computed_as_by_a_mask() -> None:
    window = 64
    shape = tiny_shape((LayerShape(2, 8, 9, window=window),), head=None, max_positions=4096)
    model = lower(random_network(shape), TARGETS["mobile"])
    for time in (7, window, 3 * window):
        assert max(elements(model, time)) <= max(2 * time * time, 48 * time)


@pytest.mark.parametrize(("windows", "in_blocks"), [(MASKED_WINDOWS, False), (MASKED_WINDOWS + 1, True)])
def test_positions_decide_between_mask_and_blocks(windows: int, in_blocks: bool) -> None:
    shape = tiny_shape((LayerShape(2, 8, 9, window=16),), head=None, max_positions=16 * windows)
    names = {name for node in lower(random_network(shape), CPU).graph.node for name in node.output}
    assert ("layers.0/attention/key_blocks" in names) is in_blocks
    assert ("window_mask" in names) is not in_blocks
