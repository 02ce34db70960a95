"""Blocks, and the whole network."""

from __future__ import annotations

import numpy as np
from torch import nn

from export.emit import Emit, Places
from export.folding import KeptScale
from export.places import places_of
from export.values import Value
from models.block import Block
from models.kinds import Reads
from models.network import Network
from models.shape import EVERY_TOKEN, FIRST_TOKEN


def lower_block(module: Block, emit: Emit, hidden: Value, places: Places) -> Value:
    """Return (readers, batch, hidden), of the tokens that `places` say.

    Residual sums are the operator Sum: the runtime turns Add before LayerNormalization into SkipLayerNormalization,
    whose CPU kernel is several times slower than the two.
    """
    if module.places is not None:
        added = emit.constant(module.places()[:, None, :].contiguous(), "places")
        hidden = emit.node("Add", hidden, added, role="placed")
    before = module.pre_norm and module.attention_norm is not None
    inner = emit.child(module, "attention_norm", hidden) if before else hidden
    reader = None if places.readers is None else _some(emit, inner, places.readers, "reader")
    kept = hidden
    if places.readers is not None:
        kept = reader if inner is hidden and reader else _some(emit, hidden, places.readers, "residual")
    written = emit.child(module, "attention", inner, places, reader) if _writes(module.attention.output) else None
    attended = _stream(module, emit, "attention_norm", kept, written, role="attended")
    read = emit.child(module, "ffn_norm", attended) if module.pre_norm else attended
    written = emit.child(module, "ffn", read) if _writes(module.ffn.down) else None
    return _stream(module, emit, "ffn_norm", attended, written, role="output" if module.pre_norm else "fed")


def _writes(last: nn.Linear) -> bool:
    """Return whether a sublayer that ends in this layer writes anything but zeros."""
    return last.in_features > 0 or (last.bias is not None and bool(last.bias.any()))


def _stream(module: Block, emit: Emit, after: str, kept: Value, written: Value | None, *, role: str) -> Value:
    """Return the stream behind a sublayer: what is kept and what is written, if anything, through the norm `after` it
    where norms come after.
    """
    norm = None if module.pre_norm else module.get_submodule(after)
    if isinstance(norm, KeptScale):
        part = emit.at(after)
        kept = part.node("Mul", kept, part.constant(norm.weight, "weight"), role="kept")
        norm = None
    summed = kept if written is None else emit.total(kept, written, role=role)
    return summed if norm is None else emit.child(module, after, summed)


def answers_of(module: Network, emit: Emit, hidden: Value, mask: Value | None) -> tuple[Value, ...]:
    """Return logits (batch, labels), of tokens (batch, time, labels), logits and boxes (batch, tokens, ...) of a head
    with boxes, embeddings (batch, width), or hidden states (batch, time, hidden) without a head, for what `states_of`
    returns and the mask (batch, time).
    """
    if module.head is None:
        return (by_batch(emit, hidden),)
    if not module.shape.reads_first:
        return emit.outputs(module, "head", hidden, mask)
    first = emit.node("Gather", hidden, emit.constant(np.array(0, dtype=np.int64), "zero"), role="first", axis=0)
    return emit.outputs(module, "head", first, None)


def by_batch(emit: Emit, hidden: Value) -> Value:
    """Return (batch, time, hidden) for (time, batch, hidden)."""
    return emit.node("Transpose", hidden, role="hidden", perm=[1, 0, 2])


def states_of(module: Network, emit: Emit, mask: Value | None, *read: Value) -> Value:
    """Return the states after the last layer, (time, batch, hidden); of fewer tokens where the head reads fewer. `read`
    is what the embeddings read, and `mask` (batch, time) is given where there may be padding.

    Time comes first: attention's products then read queries, keys and values where the projections wrote them.
    """
    hidden = emit.child(module, "embeddings", *read)
    for index, places in enumerate(places_of(module.shape, emit, hidden, mask)):
        hidden = emit.child(module, f"layers.{index}", hidden, places)
    image, head = module.shape.image, module.shape.head
    if image is not None and head is not None and head.reads is Reads.SUFFIX and module.shape.readers == EVERY_TOKEN:
        hidden = _last(emit, hidden, image.suffix, "suffix")
    if module.final_norm is not None:
        hidden = emit.child(module, "final_norm", hidden)
    return hidden


def _some(emit: Emit, hidden: Value, readers: slice, role: str) -> Value:
    """Return (readers, batch, hidden): the first token of (time, batch, hidden), or the last ones."""
    if readers == FIRST_TOKEN:
        return emit.node("Gather", hidden, emit.integers([0], "first"), role=role, axis=0)
    return _last(emit, hidden, -readers.start, role)


def _last(emit: Emit, hidden: Value, count: int, role: str) -> Value:
    """Return (count, batch, hidden): the last tokens of (time, batch, hidden)."""
    ends = [
        emit.integers([number], name)
        for number, name in ((-count, f"{role}_start"), (np.iinfo(np.int64).max, f"{role}_end"), (0, f"{role}_axis"))
    ]
    return emit.node("Slice", hidden, *ends, role=role)
