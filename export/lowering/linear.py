"""Float linear layers: one matrix product for all that read the same values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from export.emit import Emit, taken_apart
from export.values import Value


def lower_linears(modules: Sequence[nn.Linear], emits: Sequence[Emit], hidden: Value) -> list[Value]:
    """Return x @ W.T + b of every module, for x (..., in); without the sum where none has a bias."""
    emit = emits[0]
    weight = emit.constant(torch.cat([module.weight.detach() for module in modules]).t(), "weight")
    biased = any(module.bias is not None for module in modules)
    alone = len(modules) == 1
    whole = emit.node("MatMul", hidden, weight, role="product" if biased else "output" if alone else "together")
    if biased:
        bias = emit.constant(torch.cat([_bias(module) for module in modules]), "bias")
        whole = emit.node("Add", whole, bias, role="output" if alone else "together")
    if alone:
        return [whole]
    return taken_apart([module.out_features for module in modules], emits, whole)


def _bias(module: nn.Linear) -> Tensor:
    known: Tensor | None = module.bias
    return torch.zeros(module.out_features) if known is None else known.detach()
