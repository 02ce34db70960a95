"""What is told of a bundle on one device: the JSON that a user sends back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError

from compress.record import Record
from models.errors import BadFile
from models.files import read_object

DEVICE_FORMAT = 1

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Ms = Annotated[float, Field(gt=0.0)]


class Times(Record):
    """Times of calls at batch 1, in ms; of a model that writes, of whole texts."""

    calls: int = Field(ge=1, description="timed calls")
    p50_ms: Ms = Field(description="median, ms")
    p90_ms: Ms = Field(description="90th percentile, ms")
    p99_ms: Ms = Field(description="99th percentile, ms")


class LengthTimes(Times):
    """Times of texts of one length."""

    tokens: int = Field(ge=1, description="tokens of the text")


class DeviceReport(Record):
    """A bundle on a device: what that is, what the bundle computes there, and what it costs."""

    format: Literal[1] = Field(description="version of these keys")
    bundle: str = Field(pattern="^[0-9a-f]{64}$", description="digest of the bundle: of every file but its page")
    target: Name = Field(description="what the graph was written for")
    cpu: Name = Field(description="model name of the processor")
    flags: list[Name] | None = Field(
        max_length=50, description="instruction sets that matter to the kernels; null where the system lists none"
    )
    cores: int = Field(ge=1, description="processors of the system")
    threads: int = Field(ge=1, description="threads the runtime was given")
    os: Name = Field(description="operating system and release")
    python: Name = Field(description="version of Python")
    onnxruntime: Name = Field(description="version of ONNX Runtime")
    max_abs: float = Field(ge=0.0, description="largest difference from the golden outputs")
    tolerance: float = Field(gt=0.0, description="largest difference that a right bundle has")
    load_ms: Ms = Field(description="time to load the model, ms")
    before_bytes: int | None = Field(description="memory of the process before that; null where the system says none")
    peak_bytes: int | None = Field(description="most memory that the process held; null where the system says none")
    golden: Times = Field(description="the golden inputs, which are of the data's lengths")
    lengths: list[LengthTimes] = Field(
        max_length=50, description="random tokens, by length; empty for images and for what writes"
    )
    promised_p50_ms: Ms | None = Field(description="median at the gate, ms; null where the bundle says none")

    @property
    def agrees(self) -> bool:
        """Return whether the device computes what the bundle promises."""
        return self.max_abs <= self.tolerance


def read_device_report(path: Path) -> DeviceReport:
    """Return the report in a file.

    Raises:
        BadFile: there is none, or it is not one of ours; the first problem is named.
    """
    value: dict[str, Any] = read_object(path, strict=True)
    try:
        return DeviceReport.model_validate(value)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"]) or "file"
        raise BadFile(
            f"not the report of a device ({place}: {problem['msg']})",
            where=str(path),
            fix="Write it on the device: compress bench BUNDLE --device-report --out device.json.",
        ) from None
