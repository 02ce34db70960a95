"""How much the answer depends on what each linear layer reads: the curvature of the loss, one matrix a layer.

Changing a weight W of a linear layer by dW changes what it writes for a token by dy = dW x. To second order the answer
then changes by the sum over tokens of (g . dy)^2, with g the gradient of the answer with respect to what is written.
Factored as K-FAC does (Martens and Grosse 2015) into |g|^2 x x^T, that is a least-squares problem in which every token
counts as much as the answer depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from compress.recording import Recorded, recorded
from models.checkpoint import Checkpoint
from models.content import Rows
from models.encoded import Encoded
from models.evaluation import unpadded_batches
from models.memory import give_back
from models.network import Network
from models.progress import Progress, silent
from models.shape import ModelShape

TOKENS_PER_BATCH = 2048  # activations of every layer are kept for the gradient
LOGITS_PER_BATCH = 1 << 24  # of what writes: each of its tokens has as many as there are words


def curvature(
    checkpoint: Checkpoint,
    paths: Sequence[str],
    data: Encoded,
    *,
    examples: int,
    seed: int,
    progress: Progress = silent,
) -> dict[str, Tensor]:
    """Return path -> second moments of what that linear layer reads, (in + 1, in + 1) in double precision.

    The last feature is the constant 1 that the bias is multiplied with. A token's weight is |g|^2, with g the gradient
    of one random projection of the logits per example (Hutchinson 1989) with respect to what the layer writes for it.
    They are taken on up to `examples` rows of `data`, drawn from `seed`; labels are not read.
    """
    network = checkpoint.network()
    layers = [_linear(network, path) for path in paths]
    totals = [torch.zeros(one.in_features + 1, one.in_features + 1, dtype=torch.float64) for one in layers]
    with recorded(layers) as seen:
        for target in _targets(network, data.drawn(examples, seed=seed), seed=seed, progress=progress):
            for total, weighted in zip(totals, _weighted(target, layers, seen), strict=True):
                total += (weighted.t() @ weighted).double()
            seen.clear()
    return dict(zip(paths, totals, strict=True))


def table_curvature(
    checkpoint: Checkpoint, path: str, data: Encoded, *, examples: int, seed: int, progress: Progress = silent
) -> Tensor:
    """Return the second moments (width, width), in double precision, of the answer's gradient with respect to what is
    read from the embedding table at `path`; projection, rows and seed as in `curvature`.

    Changing a row by dw changes an answer to second order by dw^T (g g^T) dw, with g the gradient of a token.
    """
    network = checkpoint.network()
    table = network.get_submodule(path)
    total = torch.zeros((), dtype=torch.float64)
    with recorded([table]) as seen:
        for target in _targets(network, data.drawn(examples, seed=seed), seed=seed, progress=progress):
            gradient = torch.autograd.grad(target, seen[table][1])[0].flatten(0, -2)
            total = total + (gradient.t() @ gradient).double()
    return total


def gradient_batches(data: Encoded, shape: ModelShape) -> list[Rows]:
    """Return every row's number once, in batches of rows of one length that a gradient can be taken of."""
    most = TOKENS_PER_BATCH if shape.output is None else min(TOKENS_PER_BATCH, LOGITS_PER_BATCH // shape.outputs)
    return unpadded_batches(data.tokens_run, batch_tokens=max(1, most), likeness=data.likeness)


def projected(logits: Tensor, generator: torch.Generator, *, words: bool) -> Tensor:
    """Return v . logits, summed over the examples, with v drawn from N(0, I) for each (Hutchinson 1989); of logits of
    `words` from N(0, diag(p) - p p^T), with p the shares that they stand for, so that a change counts as much as it
    moves the shares.
    """
    drawn = torch.randn(logits.shape, generator=generator)
    if words:
        shares = logits.detach().softmax(dim=-1)
        drawn = shares.sqrt() * drawn
        drawn = drawn - shares * drawn.sum(dim=-1, keepdim=True)
    return (logits * drawn).sum()


def damped(moments: Tensor, share: float) -> Tensor:
    """Return the moments with `share` of their mean diagonal added to every feature but the constant one.

    Fewer tokens than features leave directions that were never seen.
    """
    added = torch.zeros(len(moments), dtype=torch.float64)
    added[:-1] = share * moments.diagonal()[:-1].mean()
    return moments + added.clamp(min=torch.finfo(torch.float64).tiny).diag()


def _linear(network: Network, path: str) -> nn.Linear:
    module = network.get_submodule(path)
    assert isinstance(module, nn.Linear)
    return module


def _targets(network: Network, data: Encoded, *, seed: int, progress: Progress) -> Iterator[Tensor]:
    """Yield the projected logits of every batch, once the network has run on it."""
    generator = torch.Generator().manual_seed(seed)
    tick, done = progress("curvature"), 0
    words = network.shape.output is not None
    for rows in gradient_batches(data, network.shape):
        yield projected(network(**data.batch(rows).inputs), generator, words=words)
        done += len(rows)
        tick(done, len(data))
    give_back()


def _weighted(target: Tensor, layers: Sequence[nn.Linear], seen: Recorded) -> Iterator[Tensor]:
    """Yield what each layer reads for every token, with a 1 appended, times the token's |g|: (tokens, in + 1)."""
    live = [module for module in layers if module in seen]
    gradients = dict(zip(live, torch.autograd.grad(target, [seen[module][1] for module in live]), strict=True))
    for module in layers:
        if module not in seen:  # it runs for no token: nothing is left of its sublayer
            yield torch.zeros(0, module.in_features + 1)
            continue
        read = seen[module][0].detach().flatten(0, -2)
        size = gradients[module].flatten(0, -2).norm(dim=1, keepdim=True)
        yield torch.cat([read, torch.ones_like(size)], dim=1) * size
