"""A data set as token numbers: encoded once, kept on disk, read through memory maps, cut into batches."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.data import Table
from models.errors import BadFile, Unsupported
from models.files import check_files, digest_files, digest_of, new_directory, read_object, write_json
from models.targets import WordTargets, labelled
from models.tokenizing import Encoding, Tokenizing

Rows = npt.NDArray[np.int64]

_FORMAT = 2
_META = "meta.json"
_ARRAYS = ("ids", "offsets", "second", "targets")
_CHUNK = 4096  # texts encoded before their numbers are written: bounds the memory, whatever the size of the data
_POOL = 50  # batches whose rows are sorted by length together: enough for little padding, few enough to stay random


class Batch(NamedTuple):
    """Rows of one data set, padded on the right to the longest of them.

    Shapes: `input_ids`, `attention_mask` (1 = token, 0 = padding) and `token_type_ids` (batch, time) int64; `targets`
    (batch, ...) as the task has them; `indices` (batch,) int64, the rows' numbers.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    targets: Tensor
    indices: Tensor


@final
@dataclass(frozen=True, eq=False)
class Encoded:
    """A tokenised data set of n rows.

    `ids` int32: the tokens of all rows, one row after the other; `offsets` int64 (n + 1): where each row starts;
    `second` int32 (n): the place in its row where token type 1 starts, -1 where there is none; `targets` (n, ...): what
    the task expects, whole numbers with -1 for unlabelled rows or floats with NaN, or with `by_token` int64 (tokens, 2)
    of all rows: the class of every token, -1 where there is none, and 1 where a word begins; `truncated`: how many rows
    were cut to the longest length allowed; `digest`: of everything that the numbers depend on.
    """

    ids: npt.NDArray[np.int32]
    offsets: Rows
    second: npt.NDArray[np.int32]
    targets: npt.NDArray[Any]
    truncated: int
    pad_token_id: int
    digest: str
    by_token: bool = False

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Rows:
        """Return the number of tokens of every row, int64 (n)."""
        return np.diff(self.offsets)

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
            ids=self.ids[tokens],
            offsets=np.concatenate([[0], np.cumsum(self.lengths[rows])]).astype(np.int64),
            second=self.second[rows],
            targets=self.targets[tokens if self.by_token else rows],
            truncated=self.truncated,
            pad_token_id=self.pad_token_id,
            digest=f"{self.digest}-{seed}-{count}",
            by_token=self.by_token,
        )

    def batch(self, indices: Rows) -> Batch:
        """Return the rows of these numbers, in this order, padded to the longest of them."""
        chosen = np.asarray(indices, dtype=np.int64)
        tokens = members(self.offsets, chosen)
        lengths = self.offsets[chosen + 1] - self.offsets[chosen]
        place = np.arange(int(lengths.max(initial=0)), dtype=np.int64)[None, :]  # (1, time)
        mask = place < lengths[:, None]  # (batch, time)
        input_ids = np.full(mask.shape, self.pad_token_id, dtype=np.int64)
        input_ids[mask] = self.ids[tokens]
        second = self.second[chosen][:, None]
        types = mask & (second >= 0) & (place >= second)
        if self.by_token:
            targets = np.full((*mask.shape, 2), -1, dtype=np.int64)
            targets[mask] = self.targets[tokens]
        else:
            targets = np.array(self.targets[chosen])
        return Batch(
            input_ids=torch.from_numpy(input_ids),
            attention_mask=torch.from_numpy(mask.astype(np.int64)),
            token_type_ids=torch.from_numpy(types.astype(np.int64)),
            targets=torch.from_numpy(targets),
            indices=torch.from_numpy(np.array(chosen)),
        )


def members(offsets: Rows, rows: Rows) -> Rows:
    """Return the places offsets[row] to offsets[row + 1] (exclusive) of each of these rows, one row after the other."""
    lengths = offsets[rows + 1] - offsets[rows]
    before = np.cumsum(lengths) - lengths
    places: Rows = np.arange(int(lengths.sum()), dtype=np.int64) + np.repeat(offsets[rows] - before, lengths)
    return places


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
        ids=np.concatenate([part.ids for part in parts]),
        offsets=np.concatenate([*offsets, starts[-1:]]).astype(np.int64),
        second=np.concatenate([part.second for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
        truncated=sum(part.truncated for part in parts),
        pad_token_id=parts[0].pad_token_id,
        digest=digest_of([part.digest for part in parts]),
        by_token=parts[0].by_token,
    )


def encode_table(
    table: Table,
    tokenizing: Tokenizing,
    targets: npt.NDArray[Any] | WordTargets | None,
    *,
    max_length: int,
    cache: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Encoded:
    """Return a table as token numbers, from the cache directory if they are there, else encoded and put there.

    `targets` (rows, ...) go along, those of words are carried over to tokens; without any every row is unlabelled, -1.
    `progress` is called with (rows done, rows). An entry of the cache appears whole or not at all, and is made anew
    when its files are not what was written.

    Raises:
        BadInput: the length leaves no room; a text cannot be written as UTF-8.
        Unsupported: the tokenizer marks token types in a way that is not "first text 0, second text 1".
    """
    if targets is None:
        targets = np.full(len(table), -1, dtype=np.int64)
    by_token = isinstance(targets, WordTargets)
    key = {
        "format": _FORMAT,
        "table": table.digest,
        "tokenizer": tokenizing.digest,
        "targets": _digest(targets),
        "max_length": max_length,
    }
    entry = cache / f"tokens-{digest_of(key)[:32]}"
    if entry.exists():
        try:
            return _read(entry)
        except BadFile:
            shutil.rmtree(entry)
    with new_directory(entry) as directory:
        encodings = _encodings(table, tokenizing, max_length, progress, spans=by_token)
        truncated = _write(directory, encodings, targets)
        meta = {"rows": len(table), "truncated": truncated, "pad_token_id": tokenizing.pad_token_id}
        meta |= {"by_token": by_token}
        write_json(directory / _META, {**meta, "digest": digest_of(key), "files": digest_files(directory)})
    return _read(entry)


def _encodings(
    table: Table, tokenizing: Tokenizing, max_length: int, progress: Callable[[int, int], None] | None, *, spans: bool
) -> Iterator[list[Encoding]]:
    for start in range(0, len(table), _CHUNK):
        texts = table.texts[start : start + _CHUNK]
        pairs = None if table.pairs is None else table.pairs[start : start + _CHUNK]
        yield tokenizing.encode(texts, pairs, max_length=max_length, spans=spans)
        if progress is not None:
            progress(start + len(texts), len(table))


def _flat(rows: Iterable[list[int]]) -> npt.NDArray[np.int32]:
    return np.fromiter(chain.from_iterable(rows), dtype="<i4")


def _seconds(encodings: list[Encoding]) -> list[int]:
    """Return where token type 1 starts in each row, -1 where it does not."""
    if not _flat(one.token_type_ids for one in encodings).any():
        return [-1] * len(encodings)
    starts = []
    for types in (one.token_type_ids for one in encodings):
        ones = types.count(1)
        if types != [0] * (len(types) - ones) + [1] * ones:
            raise Unsupported("the tokenizer's token types are not 0 for the first text and 1 for the second")
        starts.append(len(types) - ones if ones else -1)
    return starts


def _write(directory: Path, chunks: Iterable[list[Encoding]], targets: npt.NDArray[Any] | WordTargets) -> int:
    """Write the arrays of an entry, tokens as they come; return how many rows were truncated."""
    lengths: list[int] = []
    seconds: list[int] = []
    of_tokens: list[Rows] = []
    truncated = 0
    with (directory / "ids.npy").open("wb") as stream:
        # The header keeps room for the first axis to grow, so the true length is written over it at the end.
        _write_header(stream, 0)
        begin = stream.tell()
        for encodings in chunks:
            stream.write(_flat(one.ids for one in encodings).tobytes())
            if isinstance(targets, WordTargets):
                words = targets.words[len(lengths) : len(lengths) + len(encodings)]
                of_tokens += [_of_tokens(one, row) for one, row in zip(encodings, words, strict=True)]
            lengths += [len(one.ids) for one in encodings]
            seconds += _seconds(encodings)
            truncated += sum(one.truncated for one in encodings)
        stream.seek(0)
        _write_header(stream, sum(lengths))
        if stream.tell() != begin:
            raise BadFile("the header of the array grew over its data", where=str(directory / "ids.npy"))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    if isinstance(targets, WordTargets):
        targets = np.concatenate([np.zeros((0, 2), dtype=np.int64), *of_tokens])
    for name, array in (("offsets", offsets), ("second", np.array(seconds, dtype=np.int32)), ("targets", targets)):
        np.save(directory / f"{name}.npy", array, allow_pickle=False)
    return truncated


def _write_header(stream: Any, length: int) -> None:
    header = {"descr": "<i4", "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(stream, header)


def _of_tokens(encoding: Encoding, words: Rows) -> Rows:
    """Return int64 (tokens, 2), the class and whether a word begins, for the (words, 4) of WordTargets."""
    found = np.full((len(encoding.ids), 2), (-1, 0), dtype=np.int64)
    starts = words[:, 0]
    before = -1
    for place, (start, end) in enumerate(encoding.spans):
        word = int(np.searchsorted(starts, start, side="right")) - 1
        if start == end or word < 0 or start >= words[word, 1]:  # a special token, or a blank between words
            continue
        found[place] = (words[word, 3], 0) if word == before else (words[word, 2], 1)
        before = word
    return found


def _digest(targets: npt.NDArray[Any] | WordTargets) -> list[Any]:
    if isinstance(targets, WordTargets):
        return ["words", digest_of([_digest(row)[-1] for row in targets.words])]
    return [str(targets.dtype), list(targets.shape), hashlib.sha256(targets.tobytes()).hexdigest()]


def _read(entry: Path) -> Encoded:
    """Return an entry of the cache.

    Raises:
        BadFile: a file of it is missing or not what was written.
    """
    meta = read_object(entry / _META)
    try:
        expected = {str(name): (str(digest), int(size)) for name, (digest, size) in meta["files"].items()}
        rows, truncated, pad = int(meta["rows"]), int(meta["truncated"]), int(meta["pad_token_id"])
        digest, by_token = str(meta["digest"]), bool(meta["by_token"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadFile(f"not a record of tokenised data ({error})", where=str(entry / _META)) from error
    if set(expected) != {f"{name}.npy" for name in _ARRAYS}:
        raise BadFile("records other files than those of tokenised data", where=str(entry / _META))
    check_files(entry, expected)
    arrays = [_map(entry / f"{name}.npy") for name in _ARRAYS]
    ids, offsets, second, targets = arrays
    expected_targets = len(ids) if by_token else rows
    if not len(second) == rows == len(offsets) - 1 or len(ids) != offsets[-1] or len(targets) != expected_targets:
        raise BadFile("the arrays do not fit together", where=str(entry))
    return Encoded(ids, offsets, second, targets, truncated, pad, digest, by_token)


def _map(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadFile(f"not an array ({error})", where=str(path)) from error
