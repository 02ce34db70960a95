"""What a model reads with: it turns rows into the arrays of a network, and travels with its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from models.errors import BadInput
from models.imaging import Imaging
from models.shape import ModelShape
from models.tokenizing import Tokenizing

Arrays = Mapping[str, npt.NDArray[Any]]


class Window(Protocol):
    """A row, or the part of it that is read at once."""

    @property
    def inputs(self) -> Arrays:
        """Return what a network reads, by the names of its inputs, as a batch of one."""


class Reader(Protocol):
    """A tokenizer, or what else turns rows into arrays. It is data: the same reader reads the same everywhere."""

    @property
    def digest(self) -> str:
        """Return the SHA-256 of everything that decides what is read."""

    def save(self, directory: Path) -> None:
        """Write its files into an existing directory."""

    def shipped(self, *, token_types: bool) -> Reader:
        """Return the same reader with files as small as they can be, in words that other loaders know; `token_types`
        says whether the model reads them.
        """

    def problem(self, shape: ModelShape) -> str | None:
        """Return why a network of this shape cannot take what is read, or None."""

    def read(
        self, texts: Sequence[str], pairs: Sequence[str] | None, *, max_length: int, shared: int
    ) -> Sequence[Sequence[Window]]:
        """Return the windows of each row that a caller names, of at most `max_length` tokens; where `shared` is not 0,
        as many as a long second text needs, which share so many tokens.

        Raises:
            BadInput: a row that cannot be read.
        """


def load_reader(directory: Path, shape: ModelShape) -> Reader:
    """Return what a model of this shape in this directory reads with.

    Raises:
        BadFile: its files are missing or broken.
    """
    return Tokenizing.load(directory) if shape.image is None else Imaging.load(directory, shape.image)


def tokenizer_of(reader: Reader, *, wanted_by: str = "this model") -> Tokenizing:
    """Return a reader that is a tokenizer; `wanted_by` says who cannot do without.

    Raises:
        BadInput: it reads something else than texts.
    """
    if not isinstance(reader, Tokenizing):
        raise BadInput("images have no words and no vocabulary", where=wanted_by, fix="Leave it out.")
    return reader
