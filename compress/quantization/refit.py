"""What rounding did to the stream is undone, sublayer by sublayer, by the output projections.

Words in 2 bits change what every layer reads. From the first sublayer to the last, an output projection is changed so
that the sum which it ends in comes nearest to that of the model before rounding, on what the rounded model really feeds
it: K-prune's bottom-up least squares (Park et al. 2024), for rounding in place of pruning. No label is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from compress.curvature import damped
from compress.recording import recorded
from models.block import Block
from models.checkpoint import Checkpoint
from models.encoded import Encoded
from models.evaluation import unpadded_batches
from models.memory import give_back
from models.network import Network
from models.progress import Progress, silent
from models.shape import EVERY_TOKEN
from models.sublayers import sublayers_of

RIDGE = 0.1  # of the mean diagonal: how much an unneeded change costs
TOKENS = 40_960  # most that are kept in memory
TOKENS_PER_BATCH = 4096

Streams = list[tuple[Tensor, Tensor]]  # of every batch, what comes out of a sublayer: after rounding, and before


def refitted(
    parent: Checkpoint, rounded: Checkpoint, data: Encoded, *, progress: Progress = silent
) -> dict[str, Tensor]:
    """Return the output projections, by the names of their weights, that bring the stream of `rounded` back to that of
    `parent`: the same model before its tables were rounded. Its linear layers are still in float.

    Rows of `data` are read up to TOKENS tokens.
    """
    network, whole = rounded.network(), parent.network()
    tick = progress("refit")
    with torch.no_grad():
        streams = _embedded(network, whole, data)
        for index, (block, before) in enumerate(zip(network.layers, whole.layers, strict=True)):
            assert isinstance(block, Block)
            assert isinstance(before, Block)
            last = index + 1 == len(network.layers)
            readers = network.shape.readers if last else EVERY_TOKEN

            def attended(one: Block, stream: Tensor, readers: slice = readers) -> Tensor:
                return one.attention_sum(stream, None, readers=readers)

            sums = _refit(block.attention.output, attended, block, before, streams)
            streams = [(block.after_attention(ours), before.after_attention(theirs)) for ours, theirs in sums]
            sums = _refit(block.ffn.down, Block.ffn_sum, block, before, streams)
            streams = [(block.after_ffn(ours), before.after_ffn(theirs)) for ours, theirs in sums]
            tick(index + 1, len(network.layers))
    give_back()
    names = [f"{sublayer.reader}.{kind}" for sublayer in sublayers_of(parent.shape) for kind in ("weight", "bias")]
    return {name: network.get_parameter(name).detach() for name in names}


def _embedded(network: Network, whole: Network, data: Encoded) -> Streams:
    rows = (data.lengths.cumsum() <= TOKENS).nonzero()[0]
    batches = [data.batch(rows[batch]) for batch in unpadded_batches(data.lengths[rows], batch_tokens=TOKENS_PER_BATCH)]
    return [(network.embed(**batch.inputs), whole.embed(**batch.inputs)) for batch in batches]


def _refit(
    projection: nn.Linear,
    summed: Callable[[Block, Tensor], Tensor],
    block: Block,
    before: Block,
    streams: Sequence[tuple[Tensor, Tensor]],
) -> Streams:
    """Change `projection`, which `block` sums up with, in place; return the sums of both models."""
    features = projection.in_features
    moments = torch.zeros(features + 1, features + 1, dtype=torch.float64)  # the last feature is the bias's
    wanted = torch.zeros(features + 1, projection.out_features, dtype=torch.float64)
    targets = [summed(before, theirs) for _, theirs in streams]
    with recorded([projection]) as seen:
        for (ours, _), target in zip(streams, targets, strict=True):
            missing = (target - summed(block, ours)).flatten(0, 1)
            # It does not run where nothing is left of its sublayer.
            given = seen[projection][0].flatten(0, 1) if projection in seen else missing.new_zeros(len(missing), 0)
            given = torch.cat([given, torch.ones(len(missing), 1)], dim=1)
            moments += (given.t() @ given).double()
            wanted += (given.t() @ missing).double()
    change = torch.linalg.solve(damped(moments, RIDGE), wanted)
    projection.weight.add_(change[:-1].t())
    projection.bias.add_(change[-1])
    return [(summed(block, ours), target) for (ours, _), target in zip(streams, targets, strict=True)]
