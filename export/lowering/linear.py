"""Float linear layers: one matrix product for all that read the same values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from export.emit import Emit
from export.values import Value


def lower_linears(modules: Sequence[nn.Linear], emits: Sequence[Emit], hidden: Value) -> list[Value]:
    """Return x @ W.T + b of every module, for x (..., in)."""
    emit = emits[0]
    weight = emit.constant(torch.cat([module.weight.detach() for module in modules]).t(), "weight")
    bias = emit.constant(torch.cat([module.bias.detach() for module in modules]), "bias")
    product = emit.node("MatMul", hidden, weight, role="product")
    if len(modules) == 1:
        return [emit.node("Add", product, bias, role="output")]
    widths = emit.integers([module.out_features for module in modules], "widths")
    whole = emit.node("Add", product, bias, role="together")
    roles = tuple(part.path.rpartition(".")[2] for part in emits)
    return list(emit.nodes("Split", whole, widths, roles=roles, axis=-1))
