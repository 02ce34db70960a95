"""From a table to what is read and what is written, as token numbers: encoded once and kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.blocks import Places, blocks_in, rows_of
from models.content import Rows, Sourced, Tokens
from models.data import Table
from models.encoded import Encoded
from models.errors import BadFile, BadInput
from models.files import digest_of
from models.generation_settings import Generation
from models.kept import Notes, kept
from models.targets import NextTargets, TextTargets
from models.token_cache import mapped
from models.tokenizing import Tokenizing

Progress = Callable[[int, int], None]
Arrays = dict[str, npt.NDArray[Any]]

_FORMAT = 1
_WRITTEN = ("ids", "offsets", "labels", "source", "starts", "examples")
_RUNNING = ("ids", "offsets", "labels", "counted", "examples")
_LAST = 1 << 40  # the character behind what ends a text
_CHUNK = 4096


def encode_written(
    table: Table,
    tokenizing: Tokenizing,
    targets: TextTargets,
    *,
    generation: Generation | None,
    max_length: int,
    cache: Path,
    progress: Progress | None = None,
) -> Encoded:
    """Return texts with what is to be written for each, from the cache directory where they are there.

    Both are cut to `max_length` tokens. What is to be written ends with a token that ends a text; where it is not known
    a row is one unlabelled token, what a decoder starts with.

    Raises:
        BadInput: nothing says what a decoder starts with, the length leaves no room, or a text is none.
    """
    if generation is None or generation.start is None:
        raise BadInput(
            "nothing says which token a text starts with",
            where="generation_config.json",
            fix="Name it there: decoder_start_token_id.",
        )
    start, ends = generation.start, generation.end
    key = _key(table, tokenizing, max_length, ["written", start, list(ends), targets.texts])
    entry = cache / f"written-{key[:32]}"

    def write(directory: Path) -> Notes:
        source, starts, cut = _numbers(table.texts, tokenizing, max_length, progress, len(table))
        if targets.texts is None:
            written, lengths = [[-1]] * len(table), 0
        else:
            written, lengths = _ended(targets.texts, tokenizing, ends, max_length)
        offsets = _offsets(written)
        labels = _flat(written)
        ids = np.concatenate([[start], labels[:-1]]).astype(np.int32)
        ids[offsets[:-1]] = start
        arrays: Arrays = {"ids": ids, "labels": labels, "offsets": offsets, "source": source, "starts": starts}
        _save(directory, {**arrays, "examples": np.arange(len(table), dtype=np.int64)})
        return {"truncated": cut + lengths, "digest": key}

    def read(notes: Notes) -> Encoded:
        arrays = _open(entry, _WRITTEN)
        pad, rows = tokenizing.pad_token_id, len(arrays["examples"])
        source = Tokens(arrays["source"], np.full(rows, -1, dtype=np.int32), pad)
        content = Sourced(arrays["ids"], source, arrays["starts"], tokenizing)
        return _encoded(content, arrays, notes, entry)

    return replace(kept(entry, files=_files(_WRITTEN), write=write, read=read), table=table)


def encode_running(
    table: Table,
    tokenizing: Tokenizing,
    targets: NextTargets,
    *,
    generation: Generation | None,
    max_length: int,
    cache: Path,
    progress: Progress | None = None,
) -> Encoded:
    """Return running text in blocks of at most `max_length` tokens, of which each is expected behind those before it,
    from the cache directory where they are there. A document's last token ends a text, where one is known.

    An example is a block, of this tokenizer or of the one that `targets` name; one of the latter's that has too many
    tokens here is several rows. The third target of a token is for how many it counts.

    Raises:
        BadInput: no document has two tokens, or a text is none.
    """
    ends = () if generation is None else generation.end
    by = None if targets.by is None or targets.by.digest == tokenizing.digest else targets.by
    size = targets.size or max_length
    key = _key(table, tokenizing, max_length, ["running", list(ends), None if by is None else by.digest, size])
    entry = cache / f"running-{key[:32]}"

    def write(directory: Path) -> Notes:
        ids: list[list[int]] = []
        labels: list[list[int]] = []
        counted: list[list[int]] = []
        examples: list[int] = []
        blocks = 0
        for number, text in enumerate(table.texts, start=1):
            tokens, places, theirs = _running(text, tokenizing, by, ends[:1])
            for row in rows_of(places, theirs, size=size, longest=max_length):
                ids.append(tokens[row.first : row.last])
                labels.append(tokens[row.first + 1 : row.last + 1])
                counted.append([row.counted] + [0] * (row.last - row.first - 1))
                examples.append(blocks + row.block)
            blocks += blocks_in(len(theirs), size)
            if progress is not None:
                progress(number, len(table))
        if not ids:
            raise BadInput("no text has two tokens, so there is nothing to go on from", where=table.source)
        arrays: Arrays = {"ids": _flat(ids), "labels": _flat(labels), "counted": _flat(counted)}
        _save(directory, {**arrays, "offsets": _offsets(ids), "examples": np.array(examples, dtype=np.int64)})
        return {"truncated": 0, "digest": key}

    def read(notes: Notes) -> Encoded:
        arrays = _open(entry, _RUNNING)
        second = np.full(len(arrays["examples"]), -1, dtype=np.int32)
        return _encoded(Tokens(arrays["ids"], second, tokenizing.pad_token_id), arrays, notes, entry)

    return replace(kept(entry, files=_files(_RUNNING), write=write, read=read), table=table)


def _running(
    text: str, tokenizing: Tokenizing, by: Tokenizing | None, end: tuple[int, ...]
) -> tuple[list[int], Places, Places]:
    """Return the tokens of a document, where each of them ends, and where each of those ends that it is cut by."""
    if by is None:
        tokens = [*tokenizing.plain([text])[0], *end]
        places = np.arange(len(tokens), dtype=np.int64)
        return tokens, places, places
    (ids, ours), (_, others) = (one.placed(text) for one in (tokenizing, by))
    last = [_LAST] * len(end)
    both = (np.array([*one, *last], dtype=np.int64) for one in (ours, others))
    places, theirs = (np.maximum.accumulate(one) for one in both)
    return [*ids, *end], places, theirs


def _key(table: Table, tokenizing: Tokenizing, max_length: int, more: list[Any]) -> str:
    return digest_of(
        {
            "format": _FORMAT,
            "table": table.digest,
            "tokenizer": tokenizing.digest,
            "max_length": max_length,
            "targets": digest_of(more),
        }
    )


def _numbers(
    texts: Sequence[str], tokenizing: Tokenizing, max_length: int, progress: Progress | None, count: int
) -> tuple[npt.NDArray[np.int32], Rows, int]:
    """Return the token numbers of texts, where each starts, and how many were cut."""
    parts, lengths, cut = [np.zeros(0, dtype=np.int32)], [0], 0
    for begin in range(0, len(texts), _CHUNK):
        encodings = tokenizing.encode(texts[begin : begin + _CHUNK], max_length=max_length)
        parts.append(_flat([one.ids for one in encodings]))
        lengths += [len(one.ids) for one in encodings]
        cut += sum(one.truncated for one in encodings)
        if progress is not None:
            progress(min(begin + _CHUNK, count), count)
    return np.concatenate(parts), np.cumsum(lengths).astype(np.int64), cut


def _ended(
    texts: Sequence[str], tokenizing: Tokenizing, ends: tuple[int, ...], max_length: int
) -> tuple[list[list[int]], int]:
    """Return the token numbers of texts, each with one that ends it, and how many were cut."""
    rows, cut = [], 0
    for one in tokenizing.encode(texts, max_length=max_length):
        ended = not ends or (len(one.ids) > 0 and one.ids[-1] in ends)
        rows.append(one.ids if ended else [*one.ids[: max_length - 1], ends[0]])
        cut += one.truncated or not (ended or len(one.ids) < max_length)
    return rows, cut


def _flat(rows: Sequence[Sequence[int]]) -> npt.NDArray[np.int32]:
    return np.fromiter((one for row in rows for one in row), dtype=np.int32)


def _offsets(rows: Sequence[Sequence[int]]) -> Rows:
    return np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)


def _save(directory: Path, arrays: Arrays) -> None:
    for name, array in arrays.items():
        np.save(directory / f"{name}.npy", array, allow_pickle=False)


def _files(names: Sequence[str]) -> list[str]:
    return [f"{name}.npy" for name in names]


def _open(entry: Path, names: Sequence[str]) -> dict[str, Any]:
    return {name: mapped(entry / f"{name}.npy") for name in names}


def _encoded(content: Sourced | Tokens, arrays: dict[str, Any], notes: Notes, entry: Path) -> Encoded:
    """Return an entry of the cache; BadFile where it does not fit together."""
    try:
        truncated, digest = int(notes["truncated"]), str(notes["digest"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadFile(f"not a record of what is written ({error})", where=str(entry)) from error
    offsets, labels = arrays["offsets"], arrays["labels"]
    if len(offsets) != len(arrays["examples"]) + 1 or {int(offsets[-1]), len(arrays["ids"])} != {len(labels)}:
        raise BadFile("the arrays do not fit together", where=str(entry))
    # Each token is an answer for itself, as the first of a word is where words are tagged.
    further = [arrays["counted"]] if "counted" in arrays else []
    targets = np.stack([labels, np.ones_like(labels), *further], axis=1)
    return Encoded(content, offsets, targets, truncated, digest, by_token=True, examples=arrays["examples"])
