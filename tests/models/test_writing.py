"""A network that writes, in every form that a shape can state: at once, step by step, and as a textbook has it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.networks import EVEN, WRITES, random_network, tiny_shape
from support.strategies import writing_shapes
from torch import Tensor

from models.errors import BadInput
from models.kinds import Biases
from models.layers.attention import distance_buckets
from models.layers.cache import Cache, reordered
from models.network import Network
from models.shape import DecoderShape, LayerShape, ModelShape, OutputShape, RelativeBias

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
ALONE = tiny_shape(
    (LayerShape(4, 8, 40, causal=True, kv_heads=2, rotary=100.0), LayerShape(0, 8, 0, causal=True)),
    head=None,
    output=OutputShape(),
    type_vocab_size=0,
    pre_norm=True,
)
BEHIND = tiny_shape(EVEN, head=None, output=OutputShape(bias=True), decoder=DecoderShape(WRITES), type_vocab_size=0)


def batch_of(shape: ModelShape, *, time: int = 7, seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    """Return what a network of this shape is called with, padded, and which answers mean something."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, shape.vocab_size, (3, 6 if shape.decoder else time), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    mask[2, 1:] = 0
    batch = {"input_ids": ids, "attention_mask": mask}
    if shape.decoder is None:
        return batch, mask.bool()
    wrote = torch.randint(0, shape.written_words, (3, time), generator=generator)
    return batch | {"decoder_input_ids": wrote}, torch.ones_like(wrote, dtype=torch.bool)


def stepped(network: Network, batch: dict[str, Tensor], pieces: list[int]) -> tuple[Tensor, Cache]:
    """Return the logits of the tokens in pieces of these lengths, and the last cache."""
    behind = network.decoder is not None
    ids, mask = batch["decoder_input_ids" if behind else "input_ids"], batch["attention_mask"]
    states = network.encode(batch["input_ids"], mask) if behind else None
    logits, cache, done = list[Tensor](), None, 0
    for piece in pieces:
        seen = mask if behind else mask[:, : done + piece]
        some, cache = network.decode(ids[:, done : done + piece], None if done else states, seen, cache)
        logits.append(some)
        done += piece
    assert done == ids.shape[1]
    assert cache is not None
    return torch.cat(logits, dim=1), cache


@settings(max_examples=60)
@given(writing_shapes(), st.sampled_from([[7], [1] * 7, [3, 1, 1, 2], [2, 5]]))
def test_step_by_step_is_all_at_once(shape: ModelShape, pieces: list[int]) -> None:
    network = random_network(shape)
    batch, real = batch_of(shape)
    with torch.no_grad():
        whole = network(**batch)
        found, cache = stepped(network, batch, pieces)
    assert whole.shape == (3, 7, shape.outputs)
    torch.testing.assert_close(found[real], whole[real], **CLOSE)
    assert len(cache) == len(shape.writing_layers)
    for layer, kept in zip(shape.writing_layers, cache, strict=True):
        assert kept.own.key.shape == kept.own.value.shape == (3, layer.key_heads, 7, layer.head_size)
        assert (kept.cross is None) == (layer.cross_heads is None)


@settings(max_examples=60)
@given(writing_shapes())
def test_what_comes_later_changes_nothing(shape: ModelShape) -> None:
    network = random_network(shape)
    batch, _ = batch_of(shape)
    name = "input_ids" if shape.decoder is None else "decoder_input_ids"
    batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    other = {**batch, name: batch[name].clone()}
    other[name][:, 4:] = 0
    with torch.no_grad():
        torch.testing.assert_close(network(**other)[:, :4], network(**batch)[:, :4], **CLOSE)


def test_a_source_is_read_up_to_its_padding() -> None:
    network = random_network(BEHIND)
    batch, _ = batch_of(BEHIND)
    other = {**batch, "input_ids": batch["input_ids"] * batch["attention_mask"]}
    with torch.no_grad():
        torch.testing.assert_close(network(**other), network(**batch), **CLOSE)
        different = network(**{**batch, "input_ids": batch["input_ids"].flip(1)})
    assert not torch.allclose(different, network(**batch), atol=1e-2)


@pytest.mark.parametrize("shape", [ALONE, BEHIND], ids=["alone", "behind"])
def test_caches_follow_the_rows(shape: ModelShape) -> None:
    network = random_network(shape)
    batch, _ = batch_of(shape)
    batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    rows = torch.tensor([2, 0, 0])
    with torch.no_grad():
        _, cache = stepped(network, batch, [7])
        mask = batch["attention_mask"] if network.decoder else None
        next_one = torch.tensor([[3], [4], [5]])
        found, _ = network.decode(next_one, None, mask, reordered(cache, rows))
        name = "decoder_input_ids" if network.decoder else "input_ids"
        again = {key: value[rows] for key, value in batch.items()}
        again[name] = torch.cat([again[name], next_one], dim=1)
        again["attention_mask"] = torch.ones_like(again["input_ids"])
        torch.testing.assert_close(found[:, 0], network(**again)[:, -1], **CLOSE)


def test_attention_is_the_textbook_s() -> None:
    """Queries share keys in groups, scores have their own scale, and distances count one way."""
    shape = replace(ALONE, relative=RelativeBias(6, 8), attention_scale=0.3, biases=Biases.READING)
    network = random_network(shape)
    module, hidden = network.layers[0].attention, torch.randn(2, 5, 32)
    with torch.no_grad():
        found = network.layers[0].attention(hidden, None)
        query, key, value = (part.unflatten(-1, (-1, 8)) for part in module.project(hidden))
        outputs = torch.zeros(2, 5, 4, 8)
        from models.layers.rotary import turned, waves

        cosines, sines = waves(5, 8, 100.0)
        for head in range(4):
            asked = turned(query[:, :, head], cosines, sines)
            offered = turned(key[:, :, head // 2], cosines, sines)
            for reader in range(5):
                scores = (asked[:, reader, None] * offered[:, : reader + 1]).sum(-1) * 0.3
                apart = torch.arange(reader + 1) - reader
                scores = scores + module.relative.weight[distance_buckets(apart, shape.relative, one_way=True), head]
                shares = scores.softmax(-1)[:, :, None]
                outputs[:, reader, head] = (shares * value[:, : reader + 1, head // 2]).sum(1)
        expected = outputs.flatten(2) @ module.output.weight.t()
    assert module.output.bias is None
    torch.testing.assert_close(found, expected, **CLOSE)


@given(st.integers(4, 40), st.integers(1, 100))
def test_distances_one_way_rise_and_end(buckets: int, beyond: int) -> None:
    shape = RelativeBias(buckets, buckets // 2 + beyond)
    found = distance_buckets(-torch.arange(300), shape, one_way=True)
    assert found[: buckets // 2].tolist() == list(range(buckets // 2))
    assert bool((found.diff() >= 0).all())
    assert int(found[shape.max_distance :].min()) == int(found.max()) == buckets - 1
    assert not distance_buckets(torch.arange(1, 9), shape, one_way=True).any()


def test_words_are_written_by_the_table_that_is_read() -> None:
    network = random_network(replace(ALONE, output=OutputShape(scale=0.25)))
    hidden = torch.randn(3, 32)
    with torch.no_grad():
        torch.testing.assert_close(network.words(hidden), 0.25 * hidden @ network.embeddings.word.weight.t())
    own = replace(BEHIND, decoder=DecoderShape(WRITES, vocab_size=20))
    network = random_network(own)
    assert network.word_table.weight.shape == (20, 32)
    assert network.words(hidden).shape == (3, 20)
    assert own.outputs == 20


def test_weights_are_drawn_and_gradients_reach_them() -> None:
    torch.manual_seed(0)
    network = Network(replace(BEHIND, output=OutputShape(tied=False, bias=True))).train()
    assert float(network.decoder.layers[0].cross.query.weight.detach().std()) == pytest.approx(0.02, rel=0.2)
    batch, _ = batch_of(BEHIND)
    network(**batch).square().sum().backward()
    # A key's bias shifts all scores of a query alike, which softmax cancels.
    idle = [name for name, weight in network.named_parameters() if weight.grad is None and weight.numel()]
    assert [name for name in idle if not name.endswith("key.bias") and ".attention." not in name] == []


def test_the_sample_can_be_run() -> None:
    for shape in (ALONE, BEHIND):
        network = random_network(shape)
        assert network(**network.sample(4)).shape == (1, 4, 50)


def test_what_writes_nothing_says_so() -> None:
    network = random_network(tiny_shape())
    with pytest.raises(BadInput, match="writes nothing"):
        network.words(torch.zeros(1, 32))


def test_scores_without_a_scale_are_larger() -> None:
    shape = replace(ALONE, attention_scale=1.0)
    one, other = random_network(shape), random_network(ALONE)
    batch, real = batch_of(shape)
    with torch.no_grad():
        assert not torch.allclose(one(**batch)[real], other(**batch)[real], atol=1e-3)
    assert math.isclose(8**-0.5, 0.35355339059327373)
