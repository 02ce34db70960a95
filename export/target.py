"""What a graph may be made of, as data: one record per kind of device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, final


class Operators(str, Enum):
    """Which operators may be emitted: the ONNX standard alone, or ONNX Runtime's own too."""

    STANDARD = "standard"
    MICROSOFT = "microsoft"


class FileForm(str, Enum):
    """How the model is stored: an ONNX file, or ONNX Runtime's `.ort` for reduced builds."""

    ONNX = "onnx"
    ORT = "ort"


@final
@dataclass(frozen=True, slots=True)
class Target:
    """Where a graph will run.

    `opset` 17 is the first with LayerNormalization; every ONNX Runtime since 1.12 runs it. `lengths` are those that
    texts are filled up to, for execution providers that want every axis fixed. With `page` a bundle holds a page that
    runs it in a browser. With `blocks` weights in blocks are multiplied as they lie: a runtime that does not
    know how unpacks all of them in every call.
    """

    name: str
    operators: Operators
    file_form: FileForm
    opset: int = 17
    lengths: tuple[int, ...] = ()
    page: bool = False
    blocks: bool = False

    @property
    def microsoft(self) -> bool:
        """Return whether operators of the domain com.microsoft may be emitted."""
        return self.operators is Operators.MICROSOFT

    def at_lengths(self, lengths: tuple[int, ...]) -> Target:
        """Return the target for texts of fixed lengths. The runtime fixes them in an ONNX file alone."""
        return replace(self, file_form=FileForm.ONNX, lengths=lengths)


CPU: Final = Target("cpu", Operators.MICROSOFT, FileForm.ONNX, blocks=True)
MOBILE: Final = Target("mobile", Operators.STANDARD, FileForm.ORT)
WEB: Final = Target("web", Operators.MICROSOFT, FileForm.ONNX, page=True)  # the WebAssembly build has them all
TARGETS: Final = {target.name: target for target in (CPU, MOBILE, WEB)}
