"""The words that may be written behind a source as values of a graph, and the logits of these alone.

Of all that is needed here only the states change from one round of writing to the next: the rest is before the loop.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto
from torch import nn

from export.emit import Emit
from export.lowering.blocked import listed_in_blocks
from export.lowering.embeddings import scaled_states
from export.lowering.quantized import listed_products
from export.shortlist import WHERE, Shortlist
from export.values import Value
from models.errors import Unsupported
from models.layers.blocked import BlockedEmbedding, BlockedLinear
from models.layers.packed import PackedEmbedding, TwoBitEmbedding
from models.layers.quantized import QuantizedEmbedding, QuantizedLinear
from models.network import Network
from models.token_scores import Ids

NARROW = 1 << 16


def listed_words(emit: Emit, shortlist: Shortlist, ids: Value, *, words: int) -> Value:
    """Return which of `words` words may be written behind the source `ids` (1, source): their numbers (listed,), each
    once and the lowest first, as of equally likely ones the lowest is chosen.
    """
    row = emit.node("Gather", _numbers(emit, shortlist.rows, "rows"), ids, role="row")
    row = emit.node("Cast", row, role="row_number", to=TensorProto.INT64)
    behind = emit.node("Gather", _numbers(emit, shortlist.behind, "behind"), row, role="behind_each")
    some = [emit.node("Cast", behind, role="behind_number", to=TensorProto.INT64), *([ids] if shortlist.copies else [])]
    each = [emit.node("Reshape", part, emit.integers([-1], "all"), role="flat_words") for part in some]
    flat = each[0] if len(each) == 1 else emit.node("Concat", *each, role="some_words", axis=0)
    always = np.zeros(words, dtype=np.bool_)
    always[shortlist.always] = True
    count = emit.node("Shape", flat, role="some_count")
    yes = emit.node("Expand", emit.constant(np.ones((), dtype=np.bool_), "yes"), count, role="yes_to_each")
    chosen = emit.node("ScatterElements", emit.constant(always, "always"), flat, yes, role="chosen", axis=0)
    places = emit.node("NonZero", chosen, role="places")
    return emit.node("Squeeze", places, emit.integers([0], "axis"), role="listed")


def listed_logits(network: Network, emit: Emit, hidden: Value, table: str, words: Value) -> Value:
    """Return the logits (batch, new, listed) of `words` (listed,) for states (batch, new, hidden), the same that they
    have among all; `table` is the path of the word table that the writer reads.

    Raises:
        Unsupported: words are written by a matrix of which no rows can be taken.
    """
    output = network.output
    assert output is not None
    part = emit.at("output")
    bias = None
    if output.bias is not None:
        bias = part.node("Gather", part.constant(output.bias, "bias"), words, role="listed_biases")
    scaled = scaled_states(output, part, hidden)
    module = network.get_submodule(table) if output.projection is None else output.projection
    if isinstance(module, QuantizedEmbedding | QuantizedLinear):
        return listed_products(module, part, scaled, words, bias)
    if isinstance(module, BlockedEmbedding | BlockedLinear):
        return listed_in_blocks(module, part, scaled, words, bias)
    if isinstance(module, nn.Linear | nn.Embedding):
        rows = part.node("Gather", part.constant(module.weight, "weight"), words, role="listed_rows")
    elif isinstance(module, PackedEmbedding | TwoBitEmbedding):
        one = part.integers([0], "one")
        each = emit.child(network, table, part.node("Unsqueeze", words, one, role="listed_line"))
        rows = part.node("Squeeze", each, one, role="listed_rows")
    else:
        kind = type(module).__name__
        raise Unsupported(f"a shortlist has no rows of a {kind}", where=WHERE, fix="Leave it out.")
    by_width = part.node("Transpose", rows, role="listed_by_width", perm=[1, 0])
    product = part.node("MatMul", scaled, by_width, role="product")
    return product if bias is None else part.node("Add", product, bias, role="logits")


def _numbers(emit: Emit, numbers: Ids, role: str) -> Value:
    """Return a constant of numbers, in 16 bits where they fit."""
    return emit.constant(numbers.astype(np.uint16 if numbers.max(initial=0) < NARROW else np.int32), role)
