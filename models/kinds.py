"""The kinds that parts of a network come in, by the names that files give them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple, TypeVar

from models.errors import BadInput


class Activation(str, Enum):
    """What stands between two linear layers."""

    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    RELU = "relu"
    SILU = "silu"
    TANH = "tanh"


class Norm(str, Enum):
    """How a residual sum is normalised. ELEMENTWISE is MobileBERT's NoNorm: x * weight + bias."""

    LAYER = "layer_norm"
    RMS = "rms_norm"
    ELEMENTWISE = "elementwise"


class Positions(str, Enum):
    """Where position vectors come from. HALVES: sinusoidal, all sines before all cosines (Marian). NONE: nothing is
    added to a word's vector, and attention knows the places.
    """

    LEARNED = "learned"
    SINUSOIDAL = "sinusoidal"
    HALVES = "sinusoidal_halves"
    NONE = "none"


class Biases(str, Enum):
    """Which linear layers of a block add a bias: all, none, or what attention reads with (query, key and value)."""

    ALL = "all"
    NONE = "none"
    READING = "reading"


class Reads(str, Enum):
    """What a head makes its answer of: the first token, each token for itself, the mean of all, or each of the learned
    tokens behind an image's patches for itself.
    """

    FIRST = "first"
    EACH = "each"
    MEAN = "mean"
    SUFFIX = "suffix"


class Int8Form(str, Enum):
    """How a module is kept in whole numbers: int8 with an activation scale per call or from calibration, a table in 8,
    4 or 2 bits, or either in 4 or 8 bits with a scale for every block of so many inputs.
    """

    DYNAMIC = "dynamic"
    STATIC = "static"
    TABLE = "table"
    TABLE4 = "table4"
    TABLE2 = "table2"
    BLOCKS32 = "blocks32"
    BLOCKS64 = "blocks64"
    BLOCKS128 = "blocks128"
    BYTES128 = "bytes128"


class Blocks(NamedTuple):
    """Weights in blocks: so many inputs have one scale, and each weight so many bits."""

    inputs: int
    bits: int


TABLES = (Int8Form.TABLE, Int8Form.TABLE4, Int8Form.TABLE2)
BLOCKS: Final[Mapping[Int8Form, Blocks]] = {
    Int8Form.BLOCKS32: Blocks(32, 4),
    Int8Form.BLOCKS64: Blocks(64, 4),
    Int8Form.BLOCKS128: Blocks(128, 4),
    Int8Form.BYTES128: Blocks(128, 8),
}


_E = TypeVar("_E", bound=Enum)


def member(kind: type[_E], name: str, aliases: dict[str, _E], *, where: str) -> _E:
    """Return the enumeration member for a foreign name.

    Raises:
        BadInput: the name is not among `aliases`.
    """
    if name not in aliases:
        raise BadInput(
            f"{kind.__name__.lower()} {name!r} is not supported", where=where, fix=f"Known: {sorted(aliases)}."
        )
    return aliases[name]
