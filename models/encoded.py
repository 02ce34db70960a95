"""A data set as arrays, cut into batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.content import Content, Pixels, Rows, Sourced, Tokens, members
from models.data import Table
from models.errors import BadInput
from models.files import digest_of
from models.targets import labelled

SAMPLED_ROWS, SAMPLED_TOKENS = 256, 8192  # enough to fit a few numbers for each channel of a network
_POOL = 50  # batches whose rows are sorted by length together: enough for little padding, few enough to stay random


class Batch(NamedTuple):
    """Rows of one data set, padded on the right to the longest of them.

    `inputs` is what a network is called with, by name. Shapes: `mask` (batch, time), True for tokens and False for
    padding; `targets` (batch, ...) as the task has them; `indices` (batch,) int64, the rows' numbers.
    """

    inputs: Mapping[str, Tensor]
    mask: Tensor
    targets: Tensor
    indices: Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device; `indices` stay, for they look up what lies in files."""
        return Batch(
            inputs={name: value.to(device, non_blocking=True) for name, value in self.inputs.items()},
            mask=self.mask.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            indices=self.indices,
        )


@final
@dataclass(frozen=True, eq=False)
class Encoded:
    """A data set of n rows, encoded.

    `content`: what the rows hold; `offsets` int64 (n + 1): where the tokens of each row start; `targets` (n, ...): what
    the task expects, whole numbers with -1 for unlabelled rows or floats with NaN; of boxes (n, most, 5) a kind, -1
    where there are no more, and a box of centre, width and height as shares of the image; or with `by_token` int64
    (tokens, k) of all rows: the class of every token, -1 where there is none, 1 where a word begins, and what else a
    task needs;
    `truncated`: how many rows were cut to the longest length allowed; `digest`: of everything that the arrays depend
    on.

    Of rows with a source, `offsets` and what is by token are of the tokens that are written.

    Where an example is read in windows, a row is a window: `examples` int64 (n) is the number of its example, `spans`
    int32 (tokens, 2) are the characters of every token in the example's second text, and `table` holds the examples.
    """

    content: Content
    offsets: Rows
    targets: npt.NDArray[Any]
    truncated: int
    digest: str
    by_token: bool = False
    examples: Rows = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    spans: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int32))
    table: Table | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def tokens(self) -> Tokens:
        """Return the token numbers.

        Raises:
            BadInput: the rows are not texts.
        """
        if not isinstance(self.content, Tokens):
            raise BadInput("the examples are no texts, so they have no token numbers", where="data")
        return self.content

    @property
    def moved(self) -> Encoded:
        """Return the same images, shifted and mirrored anew whenever they are read, with the boxes in them.

        Raises:
            BadInput: the rows are no images.
        """
        if not isinstance(self.content, Pixels):
            raise BadInput("texts cannot be shifted and mirrored as images are", where="train.augment")
        return replace(self, content=replace(self.content, moved=True), digest=f"{self.digest}-moved")

    @property
    def lengths(self) -> Rows:
        """Return the number of tokens of every row, int64 (n)."""
        return np.diff(self.offsets)

    @property
    def tokens_run(self) -> Rows:
        """Return int64 (n), the tokens that a network runs on for every row: its own, and those of a source."""
        return self.lengths + self.content.read_lengths if isinstance(self.content, Sourced) else self.lengths

    @property
    def likeness(self) -> Rows:
        """Return int64 (n), equal where rows need no padding beside each other and near where they need little: the
        number of tokens, and behind it that of a source's.
        """
        if not isinstance(self.content, Sourced):
            return self.lengths
        read = self.content.read_lengths
        likeness: Rows = self.lengths * (int(read.max(initial=0)) + 1) + read
        return likeness

    @property
    def written(self) -> Sourced:
        """Return what is written behind a source.

        Raises:
            BadInput: the rows are something else.
        """
        if not isinstance(self.content, Sourced):
            raise BadInput("the examples have no source that is read and no text that is written", where="data")
        return self.content

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """Return which rows have a label, (n,); one without words has nothing that could be labelled."""
        if self.by_token:
            first = self.targets[:, 1] == 1
            unknown = np.concatenate([[0], np.cumsum(first & (self.targets[:, 0] < 0))])
            none: npt.NDArray[np.bool_] = unknown[self.offsets[1:]] == unknown[self.offsets[:-1]]
            return none
        known = labelled(self.targets)
        each: npt.NDArray[np.bool_] = np.asarray(known.all(axis=tuple(range(1, known.ndim))))
        return each

    def drawn(self, count: int, *, seed: int) -> Encoded:
        """Return `count` rows drawn from the seed, in their order, in memory; all of them where there are fewer."""
        rows = np.sort(np.random.default_rng(seed).permutation(len(self))[:count])
        tokens = members(self.offsets, rows)
        return Encoded(
            content=self.content.taken(rows, tokens),
            offsets=np.concatenate([[0], np.cumsum(self.lengths[rows])]).astype(np.int64),
            targets=self.targets[tokens if self.by_token else rows],
            truncated=self.truncated,
            digest=f"{self.digest}-{seed}-{count}",
            by_token=self.by_token,
            examples=self.examples[rows] if len(self.examples) else self.examples,
            spans=self.spans[tokens] if len(self.spans) else self.spans,
            table=self.table,
        )

    def sample(self, *, seed: int) -> Batch:
        """Return a few rows drawn from the seed, at least one: no more than SAMPLED_ROWS, and than have SAMPLED_TOKENS
        tokens with padding.
        """
        rows = np.random.default_rng(seed).permutation(len(self))[:SAMPLED_ROWS]
        longest = int(self.lengths[rows].max(initial=1))
        return self.batch(rows[: max(1, SAMPLED_TOKENS // longest)])

    def single(self, row: int) -> dict[str, npt.NDArray[Any]]:
        """Return what a runtime is called with for one row alone."""
        return {name: value.numpy() for name, value in self.batch(np.array([row])).inputs.items()}

    def batch(self, indices: Rows) -> Batch:
        """Return the rows of these numbers, in this order, padded to the longest of them."""
        chosen = np.asarray(indices, dtype=np.int64)
        tokens = members(self.offsets, chosen)
        lengths = self.offsets[chosen + 1] - self.offsets[chosen]
        mask = np.arange(int(lengths.max(initial=0)))[None, :] < lengths[:, None]  # (batch, time)
        if self.by_token:
            targets = np.full((*mask.shape, self.targets.shape[1]), -1, dtype=np.int64)
            targets[mask] = self.targets[tokens]
        else:
            targets = np.array(self.targets[chosen])
        moves = self.content.moves(len(chosen))
        if moves is not None and targets.ndim == 3:
            targets = moves.of_boxes(targets)
        return Batch(
            inputs=self.content.inputs(chosen, tokens, mask, moves),
            mask=torch.from_numpy(mask),
            targets=torch.from_numpy(targets),
            indices=torch.from_numpy(np.array(chosen)),
        )


def same_tokens(one: Encoded, other: Encoded) -> bool:
    """Return whether two encodings of rows are of the same tokens, whatever read them and up to which length."""
    if one.digest == other.digest:
        return True
    ours, theirs = one.content, other.content
    if not isinstance(ours, Tokens) or not isinstance(theirs, Tokens) or not np.array_equal(one.offsets, other.offsets):
        return False
    return np.array_equal(ours.ids, theirs.ids) and np.array_equal(ours.second, theirs.second)


def length_buckets(lengths: Rows, *, batch_size: int, seed: int | None) -> list[Rows]:
    """Return every row number once, in batches of rows of similar length.

    With a seed, rows are shuffled, sorted by length within pools of 50 batches, and the batches shuffled; the same seed
    gives the same batches. Without one, all rows are sorted by length.
    """
    if seed is None:
        return _cut(np.argsort(lengths, kind="stable"), batch_size)
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(lengths))
    batches: list[Rows] = []
    for pool in _cut(shuffled, batch_size * _POOL):
        batches += _cut(pool[np.argsort(lengths[pool], kind="stable")], batch_size)
    return [batches[number] for number in random.permutation(len(batches))]


def equal_lengths(lengths: Rows, *, batch_size: int) -> list[Rows]:
    """Return every row number once, in batches whose rows all have exactly the same length, shortest first."""
    order = np.argsort(lengths, kind="stable")
    borders = np.flatnonzero(np.diff(lengths[order])) + 1
    return [batch for group in np.split(order, borders) for batch in _cut(group, batch_size)]


def _cut(rows: Rows, size: int) -> list[Rows]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def joined(parts: Sequence[Encoded]) -> Encoded:
    """Return the rows of all parts, one part after the other, in memory; a single part is returned as it is."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(part.offsets[-1] for part in parts)])
    offsets = [part.offsets[:-1] + start for part, start in zip(parts, starts[:-1], strict=True)]
    return Encoded(
        content=parts[0].content.joined([part.content for part in parts[1:]]),
        offsets=np.concatenate([*offsets, starts[-1:]]).astype(np.int64),
        targets=np.concatenate(_equally_wide([part.targets for part in parts])),
        truncated=sum(part.truncated for part in parts),
        digest=digest_of([part.digest for part in parts]),
        by_token=parts[0].by_token,
        spans=np.concatenate([part.spans for part in parts]),
    )


def _equally_wide(targets: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """Return the targets, all with as many places for the things in a row as the widest has; the last place of a row is
    an empty one, and is repeated.
    """
    if targets[0].ndim < 3:
        return list(targets)
    most = max(one.shape[1] for one in targets)
    return [np.pad(one, ((0, 0), (0, most - one.shape[1]), (0, 0)), mode="edge") for one in targets]
