"""Every layer against the plain formula it stands for."""

from __future__ import annotations

import math

import pytest
import torch
from support.networks import tiny_shape
from torch import Tensor, nn

from models.kinds import Activation, Norm, Positions
from models.layers.activation import make_activation
from models.layers.attention import Attention, padding_mask
from models.layers.embeddings import Embeddings, SinusoidalPositions
from models.layers.feedforward import FeedForward
from models.layers.heads import ClassificationHead
from models.layers.norm import make_norm
from models.shape import FIRST_TOKEN, HeadShape, LayerShape, RelativeBias


def formula(activation: Activation, x: Tensor) -> Tensor:
    """Return the activation, written out."""
    if activation is Activation.GELU:
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    if activation is Activation.GELU_TANH:
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    if activation is Activation.RELU:
        return torch.where(x > 0, x, torch.zeros_like(x))
    if activation is Activation.SILU:
        return x / (1 + torch.exp(-x))
    return 1 - 2 / (torch.exp(2 * x) + 1)


def normalised(norm: Norm, x: Tensor, module: nn.Module, eps: float) -> Tensor:
    """Return the norm over the last axis, written out."""
    if norm is Norm.ELEMENTWISE:
        return x * module.weight + module.bias
    centred = x - x.mean(-1, keepdim=True) if norm is Norm.LAYER else x
    scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + eps)
    return scaled * module.weight + (module.bias if norm is Norm.LAYER else 0)


def added(module: Attention, head: int, reader: int, seen: Tensor) -> Tensor:
    """Return what T5's buckets add to one reader's scores, token by token (Raffel et al. 2020, section 2.1)."""
    assert module.relative is not None
    shape, values = module.relative.shape, []
    half, exact = shape.buckets // 2, shape.buckets // 2 // 2
    for token in seen.nonzero().flatten().tolist():
        far = abs(token - reader)
        steps = 0.0 if far < exact else math.log(far / exact) / math.log(shape.max_distance / exact) * (half - exact)
        bucket = far if far < exact else min(half - 1, exact + int(steps))
        values.append(module.relative.weight[bucket + (half if token > reader else 0), head])
    return torch.stack(values)


def attended(module: Attention, hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Return multi-head attention, head by head and token by token (Vaswani et al. 2017)."""
    query, key, value = module.query(hidden), module.key(hidden), module.value(hidden)
    rows = []
    for row in range(hidden.shape[0]):
        seen = torch.ones(hidden.shape[1], dtype=torch.bool) if mask is None else mask[row].bool()
        parts = []
        for head in range(module.heads):
            place = slice(head * module.head_size, (head + 1) * module.head_size)
            scores = query[row, :, place] @ key[row, seen, place].T / math.sqrt(module.head_size)
            if module.relative is not None:
                scores = scores + torch.stack([added(module, head, reader, seen) for reader in range(len(scores))])
            parts.append(scores.softmax(-1) @ value[row, seen, place])
        rows.append(torch.cat(parts, dim=-1))
    return module.output(torch.stack(rows))  # type: ignore[no-any-return]


@pytest.mark.parametrize("activation", Activation)
def test_activations(activation: Activation) -> None:
    x = torch.linspace(-6, 6, 101)
    torch.testing.assert_close(make_activation(activation)(x), formula(activation, x), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("eps", [1e-12, 1e-2])
@pytest.mark.parametrize("norm", Norm)
def test_norms(norm: Norm, eps: float) -> None:
    torch.manual_seed(0)
    module = make_norm(norm, 12, eps)
    for weight in module.parameters():
        nn.init.normal_(weight)
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(module(x), normalised(norm, x, module, eps), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("relative", [None, RelativeBias(), RelativeBias(8, 5), RelativeBias(4, 2)], ids=str)
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("heads", "size"), [(1, 3), (3, 5), (4, 2)])
def test_attention(heads: int, size: int, *, masked: bool, relative: RelativeBias | None) -> None:
    torch.manual_seed(0)
    module = Attention(10, LayerShape(heads, size, 1), dropout=0.5, relative=relative).eval()
    if module.relative is not None:
        nn.init.normal_(module.relative.weight)
    hidden = torch.randn(3, 7, 10)
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1] + [0] * 6]) if masked else None
    found = module(hidden, padding_mask(mask))
    torch.testing.assert_close(found, attended(module, hidden, mask), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(module(hidden, padding_mask(mask), readers=FIRST_TOKEN), found[:, :1])


def test_attention_drops_only_in_training() -> None:
    torch.manual_seed(0)
    module, hidden = Attention(8, LayerShape(2, 4, 1), dropout=0.5), torch.randn(2, 6, 8)
    assert not torch.equal(module(hidden, None), module(hidden, None))
    module.eval()
    assert torch.equal(module(hidden, None), module(hidden, None))


def test_a_full_mask_is_no_mask() -> None:
    assert padding_mask(None) is None
    assert padding_mask(torch.ones(2, 3, dtype=torch.int64)) is None
    mask = padding_mask(torch.tensor([[1, 1, 0]]))
    assert mask is not None
    assert mask.shape == (1, 1, 1, 3)
    assert mask.flatten().tolist() == [True, True, False]


def test_no_heads_leave_the_output_bias() -> None:
    module = Attention(8, LayerShape(0, 4, 1), dropout=0.0)
    hidden = torch.randn(2, 5, 8)
    assert torch.equal(module(hidden, None), module.output.bias.expand(2, 5, 8))
    assert torch.equal(module(hidden, None, readers=FIRST_TOKEN), module.output.bias.expand(2, 1, 8))


@pytest.mark.parametrize("activation", Activation)
def test_feed_forward(activation: Activation) -> None:
    torch.manual_seed(0)
    module, x = FeedForward(6, 11, activation), torch.randn(2, 3, 6)
    inner = formula(activation, x @ module.up.weight.T + module.up.bias)
    torch.testing.assert_close(module(x), inner @ module.down.weight.T + module.down.bias, atol=1e-5, rtol=1e-5)


def test_a_gated_feed_forward() -> None:
    module, x = FeedForward(6, 11, Activation.GELU, gated=True), torch.randn(2, 3, 6)
    assert module.gate is not None
    inner = formula(Activation.GELU, module.up(x)) * (x @ module.gate.weight.T + module.gate.bias)
    torch.testing.assert_close(module(x), inner @ module.down.weight.T + module.down.bias, atol=1e-5, rtol=1e-5)


def test_no_neurons_leave_the_bias() -> None:
    module, x = FeedForward(6, 0, Activation.GELU), torch.randn(2, 3, 6)
    assert torch.equal(module(x), module.down.bias.expand(2, 3, 6))


def test_sinusoidal_positions() -> None:
    table = SinusoidalPositions(50, 7).weight
    for place in (0, 1, 49):
        for column in range(7):
            angle = place / 10000 ** (2 * (column // 2) / 7)
            expected = math.cos(angle) if column % 2 else math.sin(angle)
            assert float(table[place, column]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("positions", Positions)
@pytest.mark.parametrize("offset", [0, 3])
@pytest.mark.parametrize("types", [0, 2])
@pytest.mark.parametrize("width", [None, 13])
def test_embeddings(positions: Positions, offset: int, types: int, width: int | None) -> None:
    torch.manual_seed(0)
    shape = tiny_shape(positions=positions, position_offset=offset, type_vocab_size=types, embedding_size=width)
    module = Embeddings(shape).eval()
    ids, kinds = torch.randint(0, 50, (2, 9)), torch.randint(0, max(types, 1), (2, 9))
    total = module.word.weight[ids]
    if module.position is not None:
        total = total + module.position.weight[torch.arange(9) + offset]
    if module.token_type is not None:
        plain = module.norm(total + module.token_type.weight[0])
        torch.testing.assert_close(module(ids, None), projected(module, plain))
        total = total + module.token_type.weight[kinds]
    torch.testing.assert_close(module(ids, kinds), projected(module, module.norm(total)))


def projected(module: Embeddings, normed: Tensor) -> Tensor:
    if module.projection is None:
        return normed
    return normed @ module.projection.weight.T + module.projection.bias


@pytest.mark.parametrize("activation", [Activation.TANH, Activation.RELU])
def test_the_head_reads_the_first_token(activation: Activation) -> None:
    torch.manual_seed(0)
    module = ClassificationHead(6, HeadShape(("a", "b", "c"), activation=activation, dropout=0.5)).eval()
    x = torch.randn(2, 4, 6)
    inner = formula(activation, x[:, 0] @ module.dense.weight.T + module.dense.bias)
    expected = inner @ module.output.weight.T + module.output.bias
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-5)
    x[:, 1:] = 7
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-5)
