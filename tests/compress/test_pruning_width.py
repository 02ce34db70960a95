"""A narrower residual stream: the right channels of every weight, and what reads them makes up for the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch_pruning
from support.examples import random_rows, tiny_checkpoint
from support.images import BOXES, drawn, image_shape
from support.networks import EFFICIENT, PRUNED, TURNED, WINDOWS, random_network, tiny_shape

from compress.pruning.importance import score_channels
from compress.pruning.width import READERS, STREAM, Channels, cuts_of, narrowed
from compress.quantization.schemes import forms_of, quantize
from models.checkpoint import Checkpoint
from models.content import Pixels
from models.encoded import Encoded
from models.errors import BadInput, Mismatch
from models.imaging import Imaging
from models.kinds import Norm, Positions, Reads
from models.shape import HeadShape, ImageShape, LayerShape, ModelShape, RelativeBias
from models.tasks.text_classification import TextClassification

TASK = TextClassification()
ONE = (LayerShape(2, 8, 12),)
KEPT = tuple(range(0, 32, 2))
PLACED = tuple(replace(layer, places=True) for layer in PRUNED)
OBJECTS = ImageShape(8, 8, 4, channels=1, suffix=2)
SHAPES = {
    "bert": tiny_shape(),
    "pruned, elementwise": tiny_shape(PRUNED, norm=Norm.ELEMENTWISE),
    "pruned, pre-norm, rms": tiny_shape(PRUNED, norm=Norm.RMS, pre_norm=True),
    "narrow tables, distances": tiny_shape(embedding_size=20, relative=RelativeBias(8, 5)),
    "turned": tiny_shape(WINDOWS, **TURNED, head=HeadShape(("a", "b"), reads=Reads.MEAN, normed=True)),
    "efficient, head of tokens": tiny_shape(EFFICIENT, head=HeadShape(("O", "B-x"), reads=Reads.EACH)),
    "nothing left": tiny_shape((LayerShape(0, 8, 0),)),
    "image": image_shape(PRUNED),
    "objects": image_shape(PLACED, image=OBJECTS, max_positions=OBJECTS.tokens, head=BOXES),
    "image, mean": image_shape(head=HeadShape(("a", "b"), reads=Reads.MEAN, dense=False)),
}


def checkpoint_of(shape: ModelShape) -> Checkpoint:
    reader = tiny_checkpoint().reader if shape.image is None else Imaging.of(shape.image)
    network = random_network(shape)
    return Checkpoint(shape, {}, reader).of(network)


def rows_of(checkpoint: Checkpoint, count: int) -> Encoded:
    image = checkpoint.shape.image
    if image is None:
        return random_rows(count, labels=0)
    assert isinstance(checkpoint.reader, Imaging)
    pixels = Pixels(drawn(0, count, image.channels, image.height, image.width), checkpoint.reader)
    offsets = np.arange(count + 1, dtype=np.int64) * image.tokens
    return Encoded(pixels, offsets, np.full(count, -1, dtype=np.int64), 0, "drawn")


def narrow(checkpoint: Checkpoint, stream: tuple[int, ...]) -> Checkpoint:
    head = {path: stream for path in READERS if f"{path}.weight" in checkpoint.weights}
    return narrowed(checkpoint, Channels(stream, head), rows_of(checkpoint, 64), examples=64, seed=0)


def logits(checkpoint: Checkpoint) -> torch.Tensor:
    with torch.inference_mode():
        return checkpoint.network()(**rows_of(checkpoint, 12).batch(np.arange(12)).inputs)


@pytest.mark.parametrize("name", SHAPES)
def test_the_graph_finds_every_weight_of_the_stream(name: str) -> None:
    checkpoint = checkpoint_of(SHAPES[name])
    cuts = cuts_of(checkpoint)
    assert all(f"layers.0.{part}" in cuts for part in ("ffn.down.bias", "attention.query.weight"))
    heads = {path for path in READERS if f"{path}.weight" in checkpoint.weights}
    assert {whose for own in cuts.values() for whose in own.values()} == {STREAM, *heads}
    # No weight of a narrower network is left out, nor one of a head's width or an FFN's.
    narrower = random_network(ModelShape.from_json({**checkpoint.shape.to_json(), "hidden_size": 20})).state_dict()
    for path, weight in checkpoint.weights.items():
        axes = [axis for axis, size in enumerate(weight.shape) if size != narrower[path].shape[axis]]
        assert sorted(cuts.get(path, {})) == axes, path
    assert logits(narrow(checkpoint, tuple(range(0, 32, 3)))).isfinite().all()
    scores = score_channels(checkpoint, rows_of(checkpoint, 8), TASK, examples=8, seed=0)
    assert scores.shape == (32,) and (scores > 0).all()


@pytest.mark.parametrize("name", SHAPES)
def test_a_stream_whose_other_channels_are_silent_stays_what_it_was(name: str) -> None:
    checkpoint = checkpoint_of(replace(SHAPES[name], norm=Norm.ELEMENTWISE))
    weights = {name: weight.clone() for name, weight in checkpoint.weights.items()}
    dropped = torch.tensor([channel for channel in range(32) if channel not in KEPT])
    for path, axes in cuts_of(checkpoint).items():
        if path.startswith("embeddings.") or path.endswith((".bias", "places.weight")) or 1 not in axes:
            for axis in axes:
                weights[path].index_fill_(axis, dropped, 0)
        elif 0 in axes:
            weights[path][dropped] = 0
    checkpoint = Checkpoint(checkpoint.shape, weights, checkpoint.reader)
    found = narrow(checkpoint, KEPT)
    assert found.shape.hidden_size == 16
    torch.testing.assert_close(logits(found), logits(checkpoint), atol=1e-4, rtol=1e-3)


def test_readers_make_up_for_channels_that_others_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tiny_checkpoint(norm=Norm.ELEMENTWISE)
    weights = {name: weight.clone() for name, weight in checkpoint.weights.items()}
    for name, weight in weights.items():  # every channel twice
        if name.endswith(("output.weight", "output.bias", "down.weight", "down.bias")) or "norm." in name:
            if not name.startswith("head."):
                weight[1::2] = weight[::2]
        elif name.startswith("embeddings."):
            weight[:, 1::2] = weight[:, ::2]
    weights["head.dense.weight"][1::2], weights["head.dense.bias"][1::2] = (
        weights["head.dense.weight"][::2],
        weights["head.dense.bias"][::2],
    )
    checkpoint = Checkpoint(checkpoint.shape, weights, checkpoint.reader)
    found = (logits(narrow(checkpoint, KEPT)) - logits(checkpoint)).abs().max()
    monkeypatch.setattr("compress.pruning.width.updated", lambda weight, bias, kept, moments: (weight[:, kept], bias))
    plain = (logits(narrow(checkpoint, KEPT)) - logits(checkpoint)).abs().max()
    assert found < 0.2 * plain, (found, plain)


def test_few_of_many_channels_keep_their_order() -> None:
    checkpoint = checkpoint_of(tiny_shape(ONE, hidden_size=320))
    kept = (0, 5, 17, 300, 311)  # in a Python set 300 comes before 5
    found = narrow(checkpoint, kept)
    for name in ("embeddings.norm.weight", "layers.0.attention_norm.bias", "layers.0.ffn.down.bias"):
        assert torch.equal(found.weights[name], checkpoint.weights[name][list(kept)]), name
    for name in ("embeddings.word.weight", "embeddings.position.weight"):
        assert torch.equal(found.weights[name], checkpoint.weights[name][:, list(kept)]), name
    assert torch.equal(
        found.weights["layers.0.attention.output.weight"],
        checkpoint.weights["layers.0.attention.output.weight"][list(kept)],
    )


def test_the_parent_is_not_changed() -> None:
    checkpoint = tiny_checkpoint()
    before = {name: weight.clone() for name, weight in checkpoint.weights.items()}
    narrow(checkpoint, KEPT)
    assert all(torch.equal(before[name], weight) for name, weight in checkpoint.weights.items())


@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("changes", [{}, {"pre_norm": True}, {"norm": Norm.ELEMENTWISE}, {"embedding_size": 12}])
def test_scores_are_squared_gradients_on_a_mask(labels: int, changes: dict[str, Any]) -> None:
    checkpoint, data = tiny_checkpoint(PRUNED, **changes), random_rows(6, labels=labels)
    scores = score_channels(checkpoint, data, TASK, examples=6, seed=0)
    if not labels:
        assert scores.shape == (32,) and (scores > 0).all()
        return
    # Scaling a channel of what a layer writes is scaling its rows.
    names = ("attention.output", "ffn.down") if checkpoint.shape.pre_norm else ("attention_norm", "ffn_norm")
    writers = ["embeddings.projection" if "embedding_size" in changes else "embeddings.norm"]
    writers += [f"layers.{index}.{name}" for index in range(len(PRUNED)) for name in names]
    total = np.zeros(32)
    for row in range(6):
        network, batch = checkpoint.network(), data.batch(np.array([row]))
        TASK.loss(network(**batch.inputs), batch.targets).backward()
        parts = [part for path in writers for part in network.get_submodule(path).parameters() if part.numel()]
        total += sum((part * part.grad).detach().reshape(32, -1).sum(dim=1).numpy() for part in parts) ** 2
    np.testing.assert_allclose(scores, total, rtol=1e-3, atol=1e-9)


def test_the_strongest_channels_are_kept() -> None:
    checkpoint = tiny_checkpoint()
    scores = np.arange(32.0)[::-1].copy()
    scores[31] = 99.0
    channels = Channels.strongest(checkpoint, scores, 4)
    assert channels.stream == (0, 1, 2, 31)
    written, read = (
        checkpoint.weights["head.dense.weight"].norm(dim=1),
        checkpoint.weights["head.output.weight"].norm(dim=0),
    )
    assert set(channels.head["head.dense"]) == set((written * read).topk(4).indices.tolist())


@pytest.mark.parametrize("count", [0, 33])
def test_impossible_widths_are_refused(count: int) -> None:
    with pytest.raises(BadInput, match=f"{count} channels cannot be cut out of a teacher of 32"):
        Channels.strongest(tiny_checkpoint(), np.ones(32), count)


def test_what_cannot_be_narrowed_is_refused() -> None:
    checkpoint = tiny_checkpoint()
    with pytest.raises(BadInput, match="quantized"):
        cuts_of(quantize(checkpoint, forms_of(checkpoint)))
    embedding = tiny_checkpoint(head=HeadShape((), reads=Reads.MEAN, width=32))
    with pytest.raises(BadInput, match="answers is read off its residual stream"):
        cuts_of(embedding)
    with pytest.raises(BadInput, match="sines of its own width"):
        cuts_of(tiny_checkpoint(positions=Positions.SINUSOIDAL))


def test_a_graph_that_leaves_a_weight_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = torch_pruning.DependencyGraph.get_pruning_group
    monkeypatch.setattr(
        torch_pruning.DependencyGraph, "get_pruning_group", lambda *given, **named: whole(*given, **named)[:3]
    )
    with pytest.raises(Mismatch, match="the dependency graph does not cut"):
        cuts_of(tiny_checkpoint())
