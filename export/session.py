"""Sessions of ONNX Runtime, and running them on arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from models.errors import BadFile, BadInput, Unsupported

Arrays = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float32]
ERRORS_ONLY = 3
_LIBRARY = "_extensions_pydll"
ANSWER = ("logits", "pred_boxes")  # outputs that are one answer together


def open_session(
    model: Path | bytes, *, threads: int, sizes: Mapping[str, int] = MappingProxyType({}), texts: bool = False
) -> onnxruntime.InferenceSession:
    """Return a CPU session with the runtime's default options, except for the number of threads; `sizes` fixes free
    axes by their names. A graph that takes `texts` needs the operators of onnxruntime-extensions.

    Raises:
        BadInput: `threads` is below 1.
        Unsupported: there is no onnxruntime-extensions here, and the graph takes texts.
        BadFile: the file is missing or not a model that the runtime reads.
    """
    if threads < 1:
        raise BadInput(f"threads is {threads}", fix="Give 1 or more.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    for name, size in sizes.items():
        options.add_free_dimension_override_by_name(name, size)
    if texts:
        options.register_custom_ops_library(_extensions())
    where = os.fspath(model) if isinstance(model, Path) else f"a model of {len(model)} bytes"
    if isinstance(model, Path) and not model.is_file():
        raise BadFile("there is no such file", where=where)
    try:
        return onnxruntime.InferenceSession(
            os.fspath(model) if isinstance(model, Path) else model, options, providers=["CPUExecutionProvider"]
        )
    except (*_RUNTIME_ERRORS, RuntimeError, ValueError) as error:
        raise BadFile(f"ONNX Runtime does not read it ({_first_line(error)})", where=where) from error


def _extensions() -> str:
    """Return the path of the library of operators for texts. It is found, not imported: the package loads PyTorch and
    transformers where they are installed, for converters that no graph needs.
    """
    package = find_spec("onnxruntime_extensions")
    folders = [] if package is None else package.submodule_search_locations or []
    for path in (Path(folder) / f"{_LIBRARY}{suffix}" for folder in folders for suffix in EXTENSION_SUFFIXES):
        if path.is_file():
            return str(path)
    raise Unsupported(
        "a graph that takes texts needs the package onnxruntime-extensions, which is not installed",
        fix="pip install onnxruntime-extensions",
    )


def feeds(session: onnxruntime.InferenceSession, arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Return those of the named arrays that the session has inputs for, in the types of these.

    With `input_ids`, `attention_mask` and `token_type_ids` may be left out: nothing is padding then, and all tokens are
    of type 0.
    """
    known = dict(arrays)
    if "input_ids" in known:
        known.setdefault("attention_mask", np.ones_like(known["input_ids"]))
        known.setdefault("token_type_ids", np.zeros_like(known["input_ids"]))
    ports = session.get_inputs()
    missing = [port.name for port in ports if port.name not in known]
    if missing:
        raise BadInput(f"the model reads {missing[0]!r}, and was given {', '.join(sorted(known))}")
    return {port.name: np.asarray(known[port.name], dtype=_TYPES[port.type]) for port in ports}


def run(session: onnxruntime.InferenceSession, arrays: Arrays) -> Floats:
    """Return the session's first output for named arrays (batch, ...), of which some may be left out as in `feeds`;
    behind it, on the last axis, what is one answer with it.

    Raises:
        BadInput: the runtime refuses the values, such as an id beyond the table.
    """
    names = [port.name for port in session.get_outputs()]
    parts = [name for name in ANSWER if name in names] if names[0] in ANSWER else names[:1]
    outputs = run_for(session, parts, arrays)
    return np.asarray(outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=-1), dtype=np.float32)


def run_for(session: onnxruntime.InferenceSession, names: Sequence[str], arrays: Arrays) -> list[NDArray[Any]]:
    """Return the session's outputs of these names; arguments and errors as in `run`."""
    given = feeds(session, arrays)
    try:
        outputs: list[NDArray[Any]] = session.run(list(names), given)
    except _RUNTIME_ERRORS as error:
        name, value = next(iter(given.items()))
        where = f"{name} of shape {value.shape}"
        raise BadInput(f"ONNX Runtime refuses the input ({_first_line(error)})", where=where) from error
    return outputs


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


_TYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32, "tensor(string)": object}
_STATES = onnxruntime.capi.onnxruntime_pybind11_state
_RUNTIME_ERRORS = (
    _STATES.Fail,
    _STATES.InvalidArgument,
    _STATES.InvalidGraph,
    _STATES.InvalidProtobuf,
    _STATES.NoModel,
    _STATES.NoSuchFile,
    _STATES.NotImplemented,
    _STATES.RuntimeException,
)
