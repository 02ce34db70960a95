"""Blocks, and the whole network."""

from __future__ import annotations

import numpy as np

from export.emit import Emit, Places
from export.places import places_of
from export.values import Value
from models.layers.norm import ElementwiseNorm
from models.network import Block, Network

WRITERS = {"attention": "output", "ffn": "down"}


def lower_block(module: Block, emit: Emit, hidden: Value, places: Places, first: Value | None) -> Value:
    """Return (time, batch, hidden), of all tokens, or of the first alone where `first` is given; `places` are those of
    what reads.

    Residual sums are the operator Sum: the runtime turns Add before LayerNormalization into SkipLayerNormalization,
    whose CPU kernel is several times slower than the two.
    """
    before = module.pre_norm and module.attention_norm is not None
    inner = emit.child(module, "attention_norm", hidden) if before else hidden
    reader = None if first is None else _first(emit, inner, "reader")
    kept = hidden if reader is None else reader if inner is hidden else _first(emit, hidden, "residual")
    attended = _joined(module, emit, "attention", kept, emit.child(module, "attention", inner, places, reader))
    read = emit.child(module, "ffn_norm", attended) if module.pre_norm else attended
    return _joined(module, emit, "ffn", attended, emit.child(module, "ffn", read))


def _joined(module: Block, emit: Emit, name: str, kept: Value, written: Value) -> Value:
    """Return the stream after a sublayer: what is kept and what is written, and the norm where it comes after.

    A norm that only scales and shifts is in the writer's weights: what is kept is scaled and nothing else is left of it
    (export.folding). A sublayer without heads or neurons is in the weights of what comes before.
    """
    sublayer, after = emit.at(name), f"{name}_norm"
    norm = None if module.pre_norm else module.get_submodule(after)
    gone = sublayer.path in emit.folds.gone
    role = {"attention": "attended", "ffn": "output" if module.pre_norm else "fed"}[name]
    if isinstance(norm, ElementwiseNorm) and sublayer.at(WRITERS[name]).path in emit.folds.scales:
        part = emit.at(after)
        scaled = part.node("Mul", kept, part.constant(norm.weight, "weight"), role="kept")
        return emit.node("Sum", scaled, written, role=role)
    summed = kept if gone else emit.node("Sum", kept, written, role=role)
    return summed if norm is None else emit.child(module, after, summed)


def answer_of(module: Network, emit: Emit, hidden: Value, mask: Value | None) -> Value:
    """Return logits (batch, labels), of tokens (batch, time, labels), embeddings (batch, hidden), or hidden states
    (batch, time, hidden) without a head, for what `states_of` returns and the mask (batch, time).
    """
    if module.head is None:
        return by_batch(emit, hidden)
    if not module.shape.reads_first:
        return emit.child(module, "head", hidden, mask)
    first = emit.node("Gather", hidden, emit.constant(np.array(0, dtype=np.int64), "zero"), role="first", axis=0)
    return emit.child(module, "head", first, None)


def by_batch(emit: Emit, hidden: Value) -> Value:
    """Return (batch, time, hidden) for (time, batch, hidden)."""
    return emit.node("Transpose", hidden, role="hidden", perm=[1, 0, 2])


def states_of(module: Network, emit: Emit, mask: Value | None, *read: Value) -> Value:
    """Return the states after the last layer, (time, batch, hidden); of the first token alone where the head reads no
    other. `read` is what the embeddings read, and `mask` (batch, time) is given where there may be padding.

    Time comes first: attention's products then read queries, keys and values where the projections wrote them.
    """
    hidden = emit.child(module, "embeddings", *read)
    for index, places in enumerate(places_of(module.shape, emit, hidden, mask)):
        last = module.shape.reads_first and index == len(module.layers) - 1
        hidden = emit.child(module, f"layers.{index}", hidden, places, hidden if last else None)
    if module.final_norm is not None:
        hidden = emit.child(module, "final_norm", hidden)
    return hidden


def _first(emit: Emit, hidden: Value, role: str) -> Value:
    """Return (1, batch, hidden): the first token of (time, batch, hidden)."""
    return emit.node("Gather", hidden, emit.integers([0], "first"), role=role, axis=0)
