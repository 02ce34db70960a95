"""The plain products that short texts are trained with, against PyTorch's fused kernel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from models.layers import gathering
from models.layers.gathering import SHORT, gathered

HEADS, SIZE, READERS, TIME = 3, 8, 4, 7
PADDED = torch.tensor([[True] * TIME, [True] * 5 + [False] * 2])[:, None, None, :]
BIAS = torch.linspace(-2, 2, HEADS * READERS * TIME).view(1, HEADS, READERS, TIME)


def drawn(kind: torch.dtype, *, time: int = TIME) -> list[Tensor]:
    """Return query, key and value that are learned."""
    torch.manual_seed(0)
    shapes = [(2, HEADS, tokens, SIZE) for tokens in (READERS, time, time)]
    return [torch.randn(shape, dtype=kind).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("added", [None, PADDED, BIAS], ids=["all", "padded", "biased"])
@pytest.mark.parametrize("scale", [None, 0.2])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_plain_products_and_the_fused_kernel_agree(
    kind: torch.dtype, scale: float | None, added: Tensor | None
) -> None:
    added = added if added is None or added.dtype == torch.bool else added.to(kind)
    ours, theirs = drawn(kind), drawn(kind)
    found = gathered(*ours, added, dropout=0.0, scale=scale)
    expected = scaled_dot_product_attention(*theirs, attn_mask=added, scale=scale)
    weight = torch.randn_like(expected)
    found.backward(weight)
    expected.backward(weight)
    near = 1e-6 if kind == torch.float32 else 0.05
    assert found.dtype == kind
    torch.testing.assert_close(found, expected, atol=near, rtol=near)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our.grad, their.grad, atol=near, rtol=near)


def test_dropout_clears_shares_and_keeps_their_mean() -> None:
    query, key, _ = drawn(torch.float32)
    one = torch.eye(TIME).expand(2, HEADS, TIME, TIME).clone().requires_grad_()  # what is gathered are the shares
    torch.manual_seed(1)
    every = torch.stack([gathered(query, key, one, None, dropout=0.3, scale=None) for _ in range(400)]).detach()
    shares = gathered(query, key, one, None, dropout=0.0, scale=None).detach()
    assert float((every == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    kept = every != 0
    torch.testing.assert_close(every[kept], (shares / 0.7).expand_as(every)[kept], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("plain", "learns", "dropout", "time"),
    [
        (True, True, 0.0, SHORT[torch.float32]),
        (True, True, 0.1, TIME),
        (False, True, 0.1, SHORT[torch.float32] + 1),
        (False, False, 0.0, TIME),
    ],
    ids=["short", "dropout", "long", "not learned"],
)
def test_only_what_is_learned_from_short_texts_is_plain(
    plain: bool, learns: bool, dropout: float, time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused: list[float] = []

    def kernel(query: Tensor, key: Tensor, value: Tensor, **settings: float) -> Tensor:
        fused.append(settings["dropout_p"])
        return query

    monkeypatch.setattr(gathering, "scaled_dot_product_attention", kernel)
    with torch.set_grad_enabled(learns):
        gathered(*drawn(torch.float32, time=time), None, dropout=dropout, scale=None)
    assert fused == ([] if plain else [dropout])
