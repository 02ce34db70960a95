"""Windows with global tokens, and linear attention, against what they are defined as, reader by reader."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.networks import EFFICIENT, TURNED, random_network, tiny_shape
from torch import Tensor, nn

from models.kinds import Positions, Reads
from models.layers.attention import LEAST_TOTAL, Attention, padding_mask
from models.shape import FIRST_TOKEN, HeadShape, LayerShape, RelativeBias

LENGTHS = (9, 6)
MASK = torch.tensor([[1] * 9, [1] * 6 + [0] * 3])


def as_turned(features: Tensor, place: int, base: float | None) -> Tensor:
    """Return features turned as complex numbers, of which the second half are the imaginary parts (Su et al. 2021)."""
    if base is None:
        return features
    half = len(features) // 2
    angles = torch.tensor([place / base ** (pair / half) for pair in range(half)])
    turned = torch.complex(features[:half], features[half:]) * torch.polar(torch.ones(half), angles)
    return torch.cat([turned.real, turned.imag])


def in_parts(module: Attention, hidden: Tensor, row: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return query, key and value of a row's tokens, each (time, heads, size)."""
    query, key, value = (part[row, :length] for part in module.project(hidden))
    split = (module.heads, module.head_size)
    return query.unflatten(1, split), key.unflatten(1, split), value.unflatten(1, split)


@pytest.mark.parametrize("window", [None, 0, 1, 2, 6, 9])
@pytest.mark.parametrize("base", [None, 1.0, 50.0])
def test_attention_in_a_window_of_turned_tokens(window: int | None, base: float | None) -> None:
    torch.manual_seed(0)
    module = Attention(10, LayerShape(2, 6, 1, window=window, rotary=base), dropout=0.0).eval()
    hidden, lengths = torch.randn(2, 7, 10), (7, 5)
    found = module(hidden, padding_mask(torch.tensor([[1] * 7, [1] * 5 + [0] * 2])))
    first = module(hidden, padding_mask(torch.tensor([[1] * 7, [1] * 5 + [0] * 2])), readers=FIRST_TOKEN)
    assert bool(found.isfinite().all())
    torch.testing.assert_close(first, found[:, :1])
    for row, length in enumerate(lengths):
        query, key, value = (part[row, :length].unflatten(1, (2, 6)) for part in module.project(hidden))
        for reader in range(length):
            seen = [token for token in range(length) if window is None or abs(token - reader) <= window]
            parts = []
            for head in range(2):
                turns = [as_turned(key[token, head], token, base) for token in seen]
                scores = torch.stack([turn @ as_turned(query[reader, head], reader, base) for turn in turns])
                parts.append((scores / math.sqrt(6)).softmax(0) @ value[seen, head])
            torch.testing.assert_close(found[row, reader], module.output(torch.cat(parts)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("global_tokens", [0, 1, 3, 20])
@pytest.mark.parametrize("window", [0, 1, 4, 8, 30])
@pytest.mark.parametrize("relative", [None, RelativeBias(8, 5)], ids=str)
def test_a_window_with_global_tokens(window: int, global_tokens: int, relative: RelativeBias | None) -> None:
    torch.manual_seed(0)
    shape = LayerShape(2, 6, 1, window=window, global_tokens=global_tokens)
    module = Attention(10, shape, dropout=0.0, relative=relative).eval()
    if module.relative is not None:
        nn.init.normal_(module.relative.weight)
    hidden = torch.randn(2, 9, 10)
    found = module(hidden, padding_mask(MASK))
    assert bool(found.isfinite().all())
    torch.testing.assert_close(module(hidden, padding_mask(MASK), readers=FIRST_TOKEN), found[:, :1])
    for row, length in enumerate(LENGTHS):
        query, key, value = in_parts(module, hidden, row, length)
        for reader in range(length):
            seen = [
                token
                for token in range(length)
                if abs(token - reader) <= window or token < global_tokens or reader < global_tokens
            ]
            parts = []
            for head in range(2):
                scores = key[seen, head] @ query[reader, head] / math.sqrt(6)
                if module.relative is not None:
                    by_distance = module.relative.by_distance(9)[:, head]
                    scores = scores + torch.stack([by_distance[token - reader + 8] for token in seen])
                parts.append(scores.softmax(0) @ value[seen, head])
            torch.testing.assert_close(found[row, reader], module.output(torch.cat(parts)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("base", [None, 50.0])
def test_linear_attention_is_its_quadratic_form(base: float | None) -> None:
    torch.manual_seed(0)
    module = Attention(10, LayerShape(3, 4, 1, linear=True, rotary=base), dropout=0.5).eval()
    hidden = torch.randn(2, 9, 10)
    found = module(hidden, padding_mask(MASK))
    torch.testing.assert_close(module(hidden, padding_mask(MASK), readers=FIRST_TOKEN), found[:, :1])
    for row, length in enumerate(LENGTHS):
        query, key, value = in_parts(module, hidden, row, length)
        asked, offered = (torch.where(part > 0, part + 1, part.exp()) for part in (query, key))
        for reader in range(length):
            parts = []
            for head in range(3):
                plain = torch.stack([asked[reader, head] @ offered[token, head] for token in range(length)])
                turned = as_turned(asked[reader, head], reader, base)
                weights = [turned @ as_turned(offered[token, head], token, base) for token in range(length)]
                parts.append(torch.stack(weights) @ value[:, head] / (plain.sum() + LEAST_TOTAL))
            torch.testing.assert_close(found[row, reader], module.output(torch.cat(parts)), atol=1e-5, rtol=1e-5)


def test_linear_shares_of_a_text_are_one_together() -> None:
    module = Attention(8, LayerShape(2, 4, 1, linear=True), dropout=0.0)
    with torch.no_grad():  # every value is the same, so that any average of them is it
        module.value.weight.zero_()
        module.value.bias.fill_(3.0)
        found = module(torch.randn(2, 7, 8), None)
        torch.testing.assert_close(found, module.output(torch.full((2, 7, 8), 3.0)))


def test_a_linear_layer_has_no_bias_for_distances() -> None:
    names = set(random_network(tiny_shape((*EFFICIENT[:1], EFFICIENT[2]), relative=RelativeBias())).state_dict())
    assert "layers.0.attention.relative.weight" in names
    assert "layers.1.attention.relative.weight" not in names


@given(st.integers(1, 12), st.integers(0, 9), st.sampled_from([Reads.FIRST, Reads.MEAN]), st.booleans())
def test_padding_changes_no_logit(time: int, padding: int, reads: Reads, turned: bool) -> None:
    settings = TURNED if turned else {"positions": Positions.LEARNED}
    network = random_network(tiny_shape(EFFICIENT, **settings, head=HeadShape(("a", "b"), reads=reads, normed=True)))
    ids = torch.randint(0, 50, (2, time), generator=torch.Generator().manual_seed(time))
    padded = torch.cat([ids, torch.zeros(2, padding, dtype=torch.int64)], dim=1)
    mask = torch.cat([torch.ones(2, time, dtype=torch.int64), torch.zeros(2, padding, dtype=torch.int64)], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(network(padded, mask), network(ids), atol=1e-5, rtol=1e-5)


def test_gradients_reach_what_a_linear_layer_learns() -> None:
    network = random_network(tiny_shape(EFFICIENT)).train()
    network(torch.randint(2, 50, (2, 9))).square().sum().backward()
    for index in range(len(EFFICIENT)):
        for name in ("query", "key", "value", "output"):
            gradient = network.get_submodule(f"layers.{index}.attention.{name}").weight.grad
            assert gradient is not None
            assert bool(gradient.any()), (index, name)
