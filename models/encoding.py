"""From a table to arrays, by whatever a model reads with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from models.data import Table
from models.encoded import Encoded
from models.errors import BadInput
from models.image_cache import encode_images
from models.imaging import Imaging
from models.reading import Reader, tokenizer_of
from models.token_cache import Expected, encode_table


def encode(
    table: Table,
    reader: Reader,
    targets: Expected | None,
    *,
    max_length: int,
    cache: Path,
    shared: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Encoded:
    """Return a table as `reader` reads it, from the cache directory where it is there; arguments as in `encode_table`.
    An image has as many tokens as `max_length`: what a network has positions for.

    Raises:
        BadInput, BadFile, Unsupported: as `encode_table` raises.
    """
    if isinstance(reader, Imaging):
        return encode_images(table, reader, targets, tokens=max_length, cache=cache, progress=progress)
    if table.images is not None:
        raise BadInput("the rows are images, and the model reads texts", where=table.source)
    return encode_table(
        table,
        tokenizer_of(reader),
        targets,
        max_length=max_length,
        cache=cache,
        shared=shared,
        progress=progress,
    )
