"""A network as the file that a target loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, final

from export.lower import lower
from export.mobile import MODEL_FILE as ORT_FILE
from export.mobile import OPERATORS_FILE, to_ort
from export.target import FileForm, Target
from models.network import Network

ONNX_FILE: Final = "model.onnx"


@final
@dataclass(frozen=True, slots=True)
class GraphFile:
    """The bytes of a model file, its name, and the files that go with it."""

    target: Target
    name: str
    data: bytes
    extra: Mapping[str, bytes] = field(default_factory=dict)


def graph_file(network: Network, target: Target) -> GraphFile:
    """Return the model file of a network for a target.

    Raises:
        Unsupported: a module has no ONNX form.
    """
    data = lower(network, target).SerializeToString()
    if target.file_form is FileForm.ONNX:
        return GraphFile(target, ONNX_FILE, data)
    stored, operators = to_ort(data)
    return GraphFile(target, ORT_FILE, stored, {OPERATORS_FILE: operators.encode()})
