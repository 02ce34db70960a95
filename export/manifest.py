"""What `manifest.json` and `golden.json` of a bundle say, and what they must.

A bundle is a directory. Its manifest MUST be of FORMAT 1; MUST list every file that is needed, by a relative name that
stays inside the directory, with its SHA-256 and its size in bytes; MUST name one of these files as the model; MUST give
name, element type and dimensions of the model's inputs and outputs as the model itself declares them; and every example
of `golden.json` MUST come out of the model within the tolerance written there. The model MUST hold its weights itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import BadFile
from models.files import read_object

FORMAT: Final = 1
MANIFEST_FILE: Final = "manifest.json"
GOLDEN_FILE: Final = "golden.json"
MAX_GOLDEN: Final = 1000


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class FileEntry(_Record):
    """A file of the bundle."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class PortEntry(_Record):
    """An input or output: `shape` has names for free dimensions."""

    name: str
    dtype: str
    shape: list[str | int]


class Manifest(_Record):
    """What a bundle is made of and where it comes from.

    `int8` gives the form of every quantized module; `shape` every size of the network; `lineage` the steps that led
    here, first to last; `measurements` what was measured on the way; `versions` the software that wrote it.
    """

    format: Literal[1]
    target: str
    opset: int
    model: str
    files: dict[str, FileEntry]
    inputs: list[PortEntry]
    outputs: list[PortEntry]
    parameters: int = Field(ge=0)
    int8: dict[str, str]
    shape: dict[str, Any]
    lineage: list[dict[str, Any]]
    measurements: dict[str, Any]
    versions: dict[str, str]


class GoldenExample(_Record):
    """One text as numbers, and the logits that the model gives for it."""

    input_ids: list[int] = Field(min_length=1)
    token_type_ids: list[int]
    logits: list[float]

    @staticmethod
    def of(inputs: Mapping[str, NDArray[Any]], logits: list[float]) -> GoldenExample:
        """Return the example of a network's inputs, a batch of one without padding."""
        ids, kinds = (inputs[name][0].tolist() for name in ("input_ids", "token_type_ids"))
        return GoldenExample(input_ids=ids, token_type_ids=kinds, logits=logits)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the network's inputs.

        Raises:
            BadFile: there is not one type for each token.
        """
        if len(self.token_type_ids) != len(self.input_ids):
            raise BadFile("an example's lengths do not fit together or do not fit the model", where=GOLDEN_FILE)
        return {"input_ids": np.array([self.input_ids]), "token_type_ids": np.array([self.token_type_ids])}


class Golden(_Record):
    """Inputs and their expected outputs, right to `tolerance` (absolute) on any machine that runs the model."""

    format: Literal[1]
    tolerance: float = Field(gt=0)
    examples: list[GoldenExample] = Field(max_length=MAX_GOLDEN)


R = TypeVar("R", Manifest, Golden)


def read_record(kind: type[R], path: Path) -> R:
    """Return the record in a JSON file.

    Raises:
        BadFile: the file is missing, too large, not JSON, or not such a record; every problem is named.
    """
    try:
        return kind.model_validate(read_object(path))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, part['loc'])) or 'file'}: {part['msg']}" for part in error.errors()]
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise BadFile("; ".join(problems[:5]) + more, where=str(path), fix="Export the bundle again.") from None
