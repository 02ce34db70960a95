"""From a table to token numbers: encoded once, kept on disk, read through memory maps."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.content import Rows, Tokens
from models.data import Table
from models.encoded import Encoded
from models.errors import BadFile, Unsupported
from models.files import digest_of
from models.kept import Notes, kept
from models.targets import SpanTargets, WordTargets
from models.tokenizing import Encoding, Tokenizing

Expected = npt.NDArray[Any] | WordTargets | SpanTargets  # of rows, or to be carried over to tokens

_FORMAT = 3
_ARRAYS = ("ids", "offsets", "second", "targets", "examples", "spans")
_CHUNK = 4096  # texts encoded before their numbers are written: bounds the memory, whatever the size of the data


def encode_table(
    table: Table,
    tokenizing: Tokenizing,
    targets: Expected | None,
    *,
    max_length: int,
    cache: Path,
    shared: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Encoded:
    """Return a table as token numbers, from the cache directory if they are there, else encoded and put there.

    `targets` (rows, ...) go along, those of words are carried over to tokens; without any every row is unlabelled, -1.
    Spans are looked for in windows that share `shared` tokens, as many as a second text needs.
    `progress` is called with (rows done, rows). An entry of the cache appears whole or not at all, and is made anew
    when its files are not what was written.

    Raises:
        BadInput: the length leaves no room; a text cannot be written as UTF-8.
        Unsupported: the tokenizer marks token types in a way that is not "first text 0, second text 1".
    """
    if targets is None:
        targets = np.full(len(table), -1, dtype=np.int64)
    by_token = isinstance(targets, (WordTargets, SpanTargets))
    key = {
        "format": _FORMAT,
        "table": table.digest,
        "tokenizer": tokenizing.digest,
        "targets": digest_of_targets(targets),
        "max_length": max_length,
        "shared": shared,
    }
    entry = cache / f"tokens-{digest_of(key)[:32]}"

    def encode(texts: list[str], pairs: list[str] | None) -> list[list[Encoding]]:
        if shared and pairs is not None:
            return tokenizing.windows(texts, pairs, max_length=max_length, shared=shared)
        return [[one] for one in tokenizing.encode(texts, pairs, max_length=max_length, spans=by_token)]

    def write(directory: Path) -> Notes:
        rows, truncated = _write(directory, _encodings(table, encode, progress), targets)
        notes = {"rows": rows, "truncated": truncated, "pad_token_id": tokenizing.pad_token_id, "by_token": by_token}
        return {**notes, "digest": digest_of(key)}

    files = [f"{name}.npy" for name in _ARRAYS]
    return replace(kept(entry, files=files, write=write, read=lambda notes: _read(entry, notes)), table=table)


def _encodings(
    table: Table,
    encode: Callable[[list[str], list[str] | None], list[list[Encoding]]],
    progress: Callable[[int, int], None] | None,
) -> Iterator[list[tuple[int, Encoding]]]:
    """Yield the windows of every row with its number, many rows at a time."""
    for start in range(0, len(table), _CHUNK):
        texts = table.texts[start : start + _CHUNK]
        windows = encode(texts, None if table.pairs is None else table.pairs[start : start + _CHUNK])
        yield [(start + number, one) for number, some in enumerate(windows) for one in some]
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


def _write(directory: Path, chunks: Iterable[list[tuple[int, Encoding]]], targets: Expected) -> tuple[int, int]:
    """Write the arrays of an entry, tokens as they come; return how many rows there are, and how many truncated."""
    lengths: list[int] = []
    seconds: list[int] = []
    examples: list[int] = []
    of_tokens: list[Rows] = []
    spans: list[npt.NDArray[np.int32]] = [np.zeros((0, 2), dtype=np.int32)]
    truncated = 0
    with (directory / "ids.npy").open("wb") as stream:
        # The header keeps room for the first axis to grow, so the true length is written over it at the end.
        _write_header(stream, 0)
        begin = stream.tell()
        for chunk in chunks:
            encodings = [one for _, one in chunk]
            stream.write(_flat(one.ids for one in encodings).tobytes())
            if isinstance(targets, WordTargets):
                of_tokens += [_of_words(one, targets.words[row]) for row, one in chunk]
            if isinstance(targets, SpanTargets):
                of_tokens += [_of_spans(one, targets.spans[row]) for row, one in chunk]
                spans += [np.array(one.spans, dtype=np.int32) for one in encodings]
            examples += [row for row, _ in chunk]
            lengths += [len(one.ids) for one in encodings]
            seconds += _seconds(encodings)
            truncated += sum(one.truncated for one in encodings)
        stream.seek(0)
        _write_header(stream, sum(lengths))
        if stream.tell() != begin:
            raise BadFile("the header of the array grew over its data", where=str(directory / "ids.npy"))
    arrays: dict[str, npt.NDArray[Any]] = {
        "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "second": np.array(seconds, dtype=np.int32),
        "examples": np.array(examples, dtype=np.int64),
        "spans": np.concatenate(spans),
        "targets": targets[examples] if isinstance(targets, np.ndarray) else np.concatenate(of_tokens),
    }
    for name, array in arrays.items():
        np.save(directory / f"{name}.npy", array, allow_pickle=False)
    return len(lengths), truncated


def _write_header(stream: Any, length: int) -> None:
    header = {"descr": "<i4", "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(stream, header)


def _of_words(encoding: Encoding, words: Rows) -> Rows:
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


def _of_spans(encoding: Encoding, spans: Rows | None) -> Rows:
    """Return int64 (tokens, 4): whether the first span begins with the token, a word begins, the span ends with it, and
    the row begins. Where the window has no span it is the first token that both begins and ends it; -1 is unknown.
    """
    found = np.zeros((len(encoding.ids), 4), dtype=np.int64)
    own = np.array(encoding.words)
    found[:, 1] = (own >= 0) & (own != np.concatenate([[-1], own[:-1]]))
    found[0, [1, 3]] = 1
    if spans is None:
        found[:, [0, 2]] = -1
        return found
    first, last = 0, 0
    if len(spans):
        begin, end = spans[0]
        inside = [
            place for place, (start, stop) in enumerate(encoding.spans) if start < stop and start < end and stop > begin
        ]
        whole = inside and encoding.spans[inside[0]][0] <= begin and encoding.spans[inside[-1]][1] >= end
        first, last = (inside[0], inside[-1]) if whole else (0, 0)
    found[first, 0] = found[last, 2] = 1
    return found


def digest_of_targets(targets: Expected) -> list[Any]:
    """Return what names these targets, as JSON values."""
    if isinstance(targets, WordTargets):
        return ["words", digest_of([digest_of_targets(row)[-1] for row in targets.words])]
    if isinstance(targets, SpanTargets):
        return ["spans", digest_of([None if row is None else digest_of_targets(row)[-1] for row in targets.spans])]
    return [str(targets.dtype), list(targets.shape), hashlib.sha256(targets.tobytes()).hexdigest()]


def _read(entry: Path, notes: Notes) -> Encoded:
    """Return an entry of the cache; BadFile where it does not fit together."""
    try:
        rows, truncated, pad = int(notes["rows"]), int(notes["truncated"]), int(notes["pad_token_id"])
        digest, by_token = str(notes["digest"]), bool(notes["by_token"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadFile(f"not a record of tokenised data ({error})", where=str(entry)) from error
    arrays = [mapped(entry / f"{name}.npy") for name in _ARRAYS]
    ids, offsets, second, targets, examples, spans = arrays
    of_rows = [len(second), len(offsets) - 1, len(examples), *([] if by_token else [len(targets)])]
    of_tokens = [offsets[-1], *([len(targets)] if by_token else []), *([len(spans)] if len(spans) else [])]
    if set(of_rows) != {rows} or set(of_tokens) != {len(ids)}:
        raise BadFile("the arrays do not fit together", where=str(entry))
    content = Tokens(ids, second, pad)
    return Encoded(content, offsets, targets, truncated, digest, by_token, examples, spans)


def mapped(path: Path) -> Any:
    """Return an array of a file, mapped.

    Raises:
        BadFile: it holds none.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadFile(f"not an array ({error})", where=str(path)) from error
