"""Texts filled up to fixed lengths: the same answers, by the smallest length that holds them, checked at every one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.examples import random_rows, tiny_checkpoint, tiny_context, tiny_tokenizing, writing_checkpoint
from support.networks import EFFICIENT, quantized_network, random_network, tiny_shape

from compress.inspecting import inspect_model
from compress.settings import ExportSettings
from compress.stages.export import run
from export.bundle import Bundle
from export.contents import Contents, write_bundle
from export.graph_file import graph_file
from export.lengths import Buckets, filled
from export.parity import native_logits
from export.target import MOBILE
from export.verify import verify_bundle
from models.checkpoint import Checkpoint
from models.errors import BadFile, BadInput, Mismatch
from models.files import sha256_file
from models.kinds import Int8Form, Reads
from models.network import Network
from models.shape import HeadShape

LENGTHS = (4, 8, 16)
SHAPES: Mapping[str, Any] = {
    "first token": {},
    "each token": {"head": HeadShape(("O", "B"), task="token-classification", reads=Reads.EACH)},
    "mean": {"head": HeadShape((), task="sentence-embedding", reads=Reads.MEAN, width=32, normalized=True)},
    "windows": {"layers": EFFICIENT},
}


def text(tokens: int) -> dict[str, Any]:
    return {"input_ids": np.arange(2, 2 + tokens)[None], "token_type_ids": np.zeros((1, tokens), dtype=np.int64)}


def bundle_of(network: Network, directory: Path) -> Bundle:
    checkpoint = Checkpoint(network.shape, {}, tiny_tokenizing()).of(network)
    graph = graph_file(network, MOBILE.at_lengths(LENGTHS))
    return write_bundle(directory, Contents.of(checkpoint, graph, [text(3), text(11)]))


def static() -> Network:
    return quantized_network(random_network(tiny_shape()), Int8Form.STATIC)


@pytest.mark.parametrize("name", SHAPES)
def test_padding_changes_nothing(name: str) -> None:
    network = random_network(tiny_shape(**SHAPES[name]))
    buckets = Buckets(graph_file(network, MOBILE.at_lengths(LENGTHS)).data, LENGTHS)
    for tokens in (1, 4, 5, 16):
        native = native_logits(network, text(tokens))
        for length in (None, *(length for length in LENGTHS if length >= tokens)):
            np.testing.assert_allclose(buckets.run_at(length, text(tokens)), native, atol=2e-5)


def test_padding_changes_nothing_in_static_int8() -> None:
    buckets = Buckets(graph_file(static(), MOBILE.at_lengths(LENGTHS)).data, LENGTHS)
    for tokens in (1, 4, 5):
        free = buckets.run_at(None, text(tokens))
        for length in (length for length in LENGTHS if length >= tokens):
            np.testing.assert_allclose(buckets.run_at(length, text(tokens)), free, atol=1e-4)


def test_the_smallest_length_that_holds_a_text_is_taken() -> None:
    network = random_network(tiny_shape())
    buckets = Buckets(graph_file(network, MOBILE.at_lengths(LENGTHS)).data, LENGTHS)
    for tokens, taken in ((1, 4), (4, 4), (5, 8), (16, 16), (17, None)):
        opened: list[int | None] = []
        original = buckets.session
        buckets.session = lambda length, opened=opened, original=original: opened.append(length) or original(length)  # type: ignore[method-assign, misc]
        buckets.run(text(tokens))
        buckets.session = original  # type: ignore[method-assign]
        assert set(opened) == {taken}
    assert [port.shape for port in buckets.session(8).get_inputs()] == [[1, 8]] * 3


def test_what_fills_up_is_masked() -> None:
    given = filled(text(2), 4)
    assert given["input_ids"].tolist() == [[2, 3, 0, 0]]
    assert given["attention_mask"].tolist() == [[1, 1, 0, 0]]
    assert given["token_type_ids"].tolist() == [[0, 0, 0, 0]]


def test_a_bundle_holds_its_weights_once_and_is_checked_at_every_length(tmp_path: Path) -> None:
    bundle = bundle_of(static(), tmp_path)
    assert bundle.manifest.lengths == list(LENGTHS)
    assert bundle.manifest.model == "model.onnx"
    assert [path.name for path in tmp_path.glob("model*")] == ["model.onnx"]
    assert verify_bundle(tmp_path).examples == 2
    plain = [answer.values["label"] for answer in bundle.predict(["w5 w6", "w7 " * 9, "w8 " * 20])]
    assert len(plain) == 3


def edit(directory: Path, **changes: Any) -> None:
    path = directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("lengths", "said"),
    [
        ([8, 4], "lengths are not numbers that rise"),
        ([4, 4], "rise"),
        ([0, 4], "rise"),
        ([4, 64], "golden|ONNX|refuses"),
    ],
)
def test_wrong_lengths_in_a_manifest_are_refused(lengths: list[int], said: str, tmp_path: Path) -> None:
    bundle_of(static(), tmp_path)
    edit(tmp_path, lengths=lengths)
    with pytest.raises((BadFile, Mismatch), match=said):
        verify_bundle(tmp_path)


def test_a_graph_of_another_length_is_refused(tmp_path: Path) -> None:
    network = random_network(tiny_shape())
    bundle_of(network, tmp_path)
    data = (tmp_path / "model.onnx").read_bytes().replace(b"time", b"tyme")
    (tmp_path / "model.onnx").write_bytes(data)
    manifest = json.loads((tmp_path / "manifest.json").read_text().replace('"time"', '"tyme"'))
    manifest["files"]["model.onnx"]["sha256"] = sha256_file(tmp_path / "model.onnx")
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadFile, match="not of 4 tokens where the length is fixed"):
        verify_bundle(tmp_path)


def test_a_length_that_no_example_proves_is_refused(tmp_path: Path) -> None:
    network = random_network(tiny_shape())
    checkpoint = Checkpoint(network.shape, {}, tiny_tokenizing()).of(network)
    write_bundle(tmp_path, Contents.of(checkpoint, graph_file(network, MOBILE.at_lengths(LENGTHS)), [text(5)]))
    with pytest.raises(BadFile, match="no example is as short as 4 tokens"):
        verify_bundle(tmp_path)


def test_lengths_are_sorted_and_for_phones() -> None:
    assert ExportSettings(target="mobile", lengths=(16, 8, 16)).lengths == (8, 16)
    with pytest.raises(ValueError, match="lengths are for the target mobile"):
        ExportSettings(lengths=(16,))
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        ExportSettings(target="mobile", lengths=(0,))


def test_the_stage_refuses_what_cannot_be_filled_up(tmp_path: Path) -> None:
    def export(checkpoint: Checkpoint, *lengths: int) -> None:
        context = tiny_context(tmp_path, checkpoint, validation=random_rows(4))
        run(checkpoint, ExportSettings(target="mobile", lengths=lengths), context)

    with pytest.raises(BadInput, match="a length of 41 tokens is beyond the 40"):
        export(tiny_checkpoint(), 16, 41)
    with pytest.raises(BadInput, match="writes or reads images"):
        export(writing_checkpoint("bart"), 16)
    dynamic = quantized_network(random_network(tiny_shape()), Int8Form.DYNAMIC)
    with pytest.raises(BadInput, match="taken of a whole call"):
        export(Checkpoint(dynamic.shape, {}, tiny_tokenizing()).of(dynamic), 16)


def test_the_stage_leaves_an_example_for_every_length(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    context = tiny_context(tmp_path, checkpoint, validation=random_rows(6))
    made = run(checkpoint, ExportSettings(target="mobile", lengths=(2, 40), golden=2), context).product
    lengths = [one["input_ids"].shape[1] for one in made.contents.examples]
    assert len(lengths) == 3
    assert min(lengths) == 2
    (tmp_path / "bundle").mkdir()
    made.save(tmp_path / "bundle")
    verify_bundle(tmp_path / "bundle")
    facts = inspect_model(str(tmp_path / "bundle"))["providers"]["model.onnx"]
    assert "a length that is not fixed" not in json.dumps(facts)
    assert facts["Core ML"]["taken"] > facts["Core ML"]["nodes"] / 2
