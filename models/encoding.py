"""From a table to arrays, by whatever a model reads with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from models.data import Table
from models.encoded import Encoded
from models.errors import BadInput
from models.generation_settings import Generation
from models.image_cache import encode_images
from models.imaging import Imaging
from models.reading import Reader, tokenizer_of
from models.targets import NextTargets, TextTargets
from models.token_cache import Expected, encode_table
from models.written_cache import encode_running, encode_written


class _Given(TypedDict):
    generation: Generation | None
    max_length: int
    cache: Path
    progress: Callable[[int, int], None] | None


def encode(
    table: Table,
    reader: Reader,
    targets: Expected | TextTargets | NextTargets | None,
    *,
    max_length: int,
    cache: Path,
    shared: int = 0,
    generation: Generation | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Encoded:
    """Return a table as `reader` reads it, from the cache directory where it is there; arguments as in `encode_table`.
    `generation` says how the model writes, where it does. An image has as many tokens as `max_length`: what a network
    has positions for.

    Raises:
        BadInput, BadFile, Unsupported: as `encode_table`, `encode_written` and `encode_running` raise.
    """
    if isinstance(reader, Imaging):
        if isinstance(targets, (TextTargets, NextTargets)):
            raise BadInput("the model reads images, and texts are to be written", where=table.source)
        return encode_images(table, reader, targets, tokens=max_length, cache=cache, progress=progress)
    if table.images is not None:
        raise BadInput("the rows are images, and the model reads texts", where=table.source)
    tokenizing = tokenizer_of(reader)
    given: _Given = {"generation": generation, "max_length": max_length, "cache": cache, "progress": progress}
    if isinstance(targets, TextTargets):
        return encode_written(table, tokenizing, targets, **given)
    if isinstance(targets, NextTargets):
        return encode_running(table, tokenizing, targets, **given)
    return encode_table(
        table,
        tokenizing,
        targets,
        max_length=max_length,
        cache=cache,
        shared=shared,
        progress=progress,
    )
