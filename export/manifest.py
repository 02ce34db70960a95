"""What `manifest.json` and `golden.json` of a bundle say, and what they must.

A bundle is a directory. Its manifest MUST be of FORMAT 1; MUST list every file in the directory but itself, by a
relative name that stays inside, with its SHA-256 and its size in bytes; MUST name one of these files as the model, and
where it writes behind an encoder, another as that; MUST give name, element type and dimensions of the model's inputs
and outputs as the model itself declares them; and every example of `golden.json`, at least one, MUST come out of the
model within the tolerance written there, and also at each of its `lengths` that holds the example; each holds one. The
model MUST hold its weights itself. No file MAY be a link, and none MAY lie there that is not listed, hidden ones that a
system drops included. No object of these JSON files MAY have a key twice.
"""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from export.caches import SEQUENCES
from export.text.feeding import texts_to_feed
from export.text.ports import PAIR, TEXT
from models.errors import BadFile
from models.files import digest_of, read_object

FORMAT: Final = 1
MANIFEST_FILE: Final = "manifest.json"
GOLDEN_FILE: Final = "golden.json"
README_FILE: Final = "README.md"
CONFIG_FILE: Final = "config.json"
PAGE_FILE: Final = "index.html"
PAGE_FOLDER: Final = "web"
MAX_GOLDEN: Final = 1000
MAX_BYTES: Final = 1 << 26  # of an array of an example, unpacked


def is_of_page(name: str) -> bool:
    """Return whether a file of a bundle is part of the page for browsers, and not the model's."""
    return name == PAGE_FILE or name.startswith(f"{PAGE_FOLDER}/")


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


def port_entries(ports: Sequence[Any]) -> list[PortEntry]:
    """Return inputs or outputs of a session as the manifest writes them."""
    return [
        PortEntry(name=port.name, dtype=port.type.removeprefix("tensor(").removesuffix(")"), shape=list(port.shape))
        for port in ports
    ]


class Manifest(_Record):
    """What a bundle is made of and where it comes from.

    `int8` gives the form of every quantized module; `shape` every size of the network; `lineage` the steps that led
    here, first to last; `measurements` what was measured on the way; `versions` the software that wrote it; `lengths`
    those that texts are filled up to where a session fixes the model's axes `batch` and `time`.
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
    encoder: str | None = None
    lengths: list[int] = Field(default=[], max_length=64)

    @model_validator(mode="after")
    def _rising(self) -> Manifest:
        if self.lengths != sorted({length for length in self.lengths if length > 0}):
            raise ValueError("lengths are not numbers that rise from 1 on")
        return self

    @property
    def takes_texts(self) -> bool:
        """Return whether the model's graph has its tokenizer in it."""
        return any(port.name == TEXT for port in self.inputs)

    @property
    def searches(self) -> bool:
        """Return whether the model's graph writes whole texts by itself."""
        return any(port.name == SEQUENCES for port in self.outputs)

    @property
    def stands_alone(self) -> bool:
        """Return whether the graph tokenizes or searches by itself, so that no class of other libraries can load it."""
        return self.takes_texts or self.searches

    @property
    def models(self) -> list[str]:
        """Return the names of the model's files: one, or two with an encoder."""
        return [self.model, *([] if self.encoder is None else [self.encoder])]

    @property
    def digest(self) -> str:
        """Return the digest of every file that a device uses: the page, which tells of measurements, may be written
        anew.
        """
        return digest_of({name: entry.sha256 for name, entry in self.files.items() if name != README_FILE})


class PackedArray(_Record):
    """An array of float32: its axes, and its bytes (little-endian) deflated and in base64."""

    shape: list[int] = Field(min_length=1, max_length=4)
    data: str

    @staticmethod
    def of(array: NDArray[np.float32]) -> PackedArray:
        """Return the array packed."""
        data = b64encode(zlib.compress(array.astype("<f4").tobytes(), 9)).decode("ascii")
        return PackedArray(shape=list(array.shape), data=data)

    def array(self) -> NDArray[np.float32]:
        """Return the array.

        Raises:
            BadFile: the bytes are not those of such an array.
        """
        size = 4 * int(np.prod(self.shape, dtype=object))
        try:
            unpacking = zlib.decompressobj()
            data = unpacking.decompress(b64decode(self.data, validate=True), size + 1) if 0 < size <= MAX_BYTES else b""
        except (ValueError, zlib.error) as error:
            raise BadFile(f"an example's array is broken ({error})", where=GOLDEN_FILE) from None
        if len(data) != size or min(self.shape) < 1:
            raise BadFile("an example's array is not as large as it says", where=GOLDEN_FILE)
        return np.frombuffer(data, dtype="<f4").astype(np.float32).reshape(self.shape)


class GoldenExample(_Record):
    """One text as numbers, or the normalised pixels of an image, and the logits that the model gives for it; or what is
    `written` for a text, each token the likeliest, and the logit of each; of a graph that searches the best text, and
    its score where there is one. Of a model that takes texts, the `text` and its pair besides the numbers that its
    tokenizer makes of them.
    """

    text: str | None = None
    text_pair: str | None = None
    input_ids: list[int] = []
    token_type_ids: list[int] = []
    written: list[int] = []
    pixel_values: PackedArray | None = None
    logits: list[float]

    @staticmethod
    def of(inputs: Mapping[str, NDArray[Any]], logits: list[float]) -> GoldenExample:
        """Return the example of a network's inputs, a batch of one without padding, with its texts if told."""
        if "pixel_values" in inputs:
            return GoldenExample(pixel_values=PackedArray.of(inputs["pixel_values"][0]), logits=logits)
        ids, kinds = (inputs[name][0].tolist() for name in ("input_ids", "token_type_ids"))
        texts = {name: str(inputs[name][0]) for name in (TEXT, PAIR) if name in inputs}
        return GoldenExample(
            text=texts.get(TEXT), text_pair=texts.get(PAIR), input_ids=ids, token_type_ids=kinds, logits=logits
        )

    @model_validator(mode="after")
    def _one_input(self) -> GoldenExample:
        if bool(self.input_ids) == (self.pixel_values is not None):
            raise ValueError("an example is a text or an image")
        return self

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the network's inputs.

        Raises:
            BadFile: there is not one type for each token, or an array is broken.
        """
        if self.pixel_values is not None:
            return {"pixel_values": self.pixel_values.array()[None]}
        if self.text is not None:
            return dict(texts_to_feed(self.text, self.text_pair))
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
        return kind.model_validate(read_object(path, strict=True))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, part['loc'])) or 'file'}: {part['msg']}" for part in error.errors()]
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise BadFile("; ".join(problems[:5]) + more, where=str(path), fix="Export the bundle again.") from None
