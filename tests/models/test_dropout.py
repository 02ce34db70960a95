from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.layers.dropout import Dropout, dropped


@pytest.mark.parametrize("rate", [0.004, 0.1, 0.5, 0.97])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_share_is_cleared_and_the_rest_scaled(rate: float, kind: torch.dtype) -> None:
    torch.manual_seed(0)
    values = torch.ones(999, 1001, dtype=kind, requires_grad=True)  # no multiple of four
    found = dropped(values, rate)
    assert found.dtype == kind
    assert float((found == 0).float().mean()) == pytest.approx(rate, rel=0.05)
    kept = found[found != 0].detach().float()
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rate)), rtol=5e-3, atol=0.0)
    found.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, found.detach())  # of ones: what is cleared learns nothing


def test_neighbours_are_cleared_independently() -> None:
    """One draw serves four values: none of them may tell of another."""
    torch.manual_seed(0)
    gone = (dropped(torch.ones(1 << 20), 0.5) == 0).float().view(-1, 4)
    apart = torch.corrcoef(gone.t()) - torch.eye(4)
    assert float(apart.abs().max()) < 0.01


@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.floats(0, 1))
def test_every_shape_and_rate(shape: list[int], rate: float) -> None:
    found = dropped(torch.ones(shape), rate)
    assert found.shape == tuple(shape)
    assert bool(found.isfinite().all())
    assert rate != 1 or not bool(found.any())
    assert rate != 0 or bool(found.all())


def test_the_seed_decides_and_nothing_is_cleared_in_evaluation() -> None:
    module, values = Dropout(0.5), torch.randn(50)
    drawn = [(torch.manual_seed(seed), module(values))[1] for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(module.eval()(values), values)
