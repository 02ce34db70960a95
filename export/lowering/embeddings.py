"""Word, position and token-type vectors, time first."""

from __future__ import annotations

from torch import nn

from export.emit import Emit
from export.values import Value
from models.layers.embeddings import Embeddings, SinusoidalPositions
from models.layers.quantized import QuantizedEmbedding


def lower_embedding(module: nn.Embedding | SinusoidalPositions, emit: Emit, indices: Value) -> Value:
    """Return rows (..., width) for whole numbers (...)."""
    return emit.node("Gather", emit.constant(module.weight, "weight"), indices, role="rows")


def lower_embeddings(module: Embeddings, emit: Emit, ids: Value, kinds: Value | None = None) -> Value:
    """Return (time, batch, hidden) for `ids` and token types `kinds`, both (batch, time)."""
    ids = emit.node("Transpose", ids, role="ids_by_time", perm=[1, 0])
    parts = [emit.child(module, "word", ids)]
    if module.position is not None:
        parts.append(_positions(module, module.position, emit, ids))
    if kinds is not None:
        by_time = emit.node("Transpose", kinds, role="kinds_by_time", perm=[1, 0])
        parts.append(emit.child(module, "token_type", by_time))
    normed = emit.child(module, "norm", parts[0] if len(parts) == 1 else emit.node("Sum", *parts, role="sum"))
    return normed if module.projection is None else emit.child(module, "projection", normed)


def _positions(module: Embeddings, table: nn.Module, emit: Emit, ids: Value) -> Value:
    """Return (time, 1, hidden): the table's rows from the offset on, as many as there are tokens."""
    part = emit.at("position")
    if isinstance(table, QuantizedEmbedding):
        rows = table.weight.float() * table.weight_scale[:, None]
    else:
        rows = table.get_parameter("weight").data if isinstance(table, nn.Embedding) else table.get_buffer("weight")
    usable = part.constant(rows[module.position_offset :, None, :], "weight")
    length = part.node("Shape", ids, role="length", start=0, end=1)
    return part.node("Slice", usable, part.integers([0], "first"), length, part.integers([0], "axis"), role="rows")
