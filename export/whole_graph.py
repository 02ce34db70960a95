"""Whether a model's file is what it says it is, and holds all of its weights itself."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from models.errors import BadFile

if TYPE_CHECKING:  # a device that only answers and writes does without it
    import onnx

FORMS: Final = (".onnx", ".ort")
_KEY: Final = b"location"  # of a tensor whose values lie elsewhere; whatever else a file says, it says this word
_ORT_MARK: Final = slice(4, 8), b"ORTM"


def check_model(path: Path) -> None:
    """Check a model's file before a device trusts it.

    Raises:
        BadFile: it is missing, is neither ONNX nor `.ort`, is not a valid model, or keeps weights outside of it.
    """
    if path.suffix not in FORMS:
        raise BadFile(f"a model ends in {' or '.join(FORMS)}", where=str(path))
    if path.suffix == ".ort":
        _check_mark(path)
    else:
        _check_onnx(path)


def check_weights_inside(path: Path) -> None:
    """Check that a model's file names no other file, which a runtime would read. It is quick: only a file that has the
    word for it is read as a model.

    Raises:
        BadFile: it is missing, or keeps weights outside of it.
    """
    if not path.is_file():
        raise BadFile("there is no such file", where=str(path))
    if path.suffix == ".onnx" and _says(path, _KEY):
        _refuse_outside(_read(path), path)


def _says(path: Path, word: bytes) -> bool:
    if path.stat().st_size == 0:
        return False
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(word) >= 0


def _check_mark(path: Path) -> None:
    place, mark = _ORT_MARK
    with path.open("rb") as stream:
        if stream.read(place.stop)[place] != mark:
            raise BadFile("not a model in ONNX Runtime's own format", where=str(path))


def _check_onnx(path: Path) -> None:
    import onnx

    model = _read(path)
    _refuse_outside(model, path)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise BadFile(f"not a valid ONNX model ({_first_line(error)})", where=str(path)) from error


def _read(path: Path) -> onnx.ModelProto:
    import onnx

    try:
        return onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise BadFile(f"not a valid ONNX model ({_first_line(error)})", where=str(path)) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "no more is known")


def _refuse_outside(model: onnx.ModelProto, path: Path) -> None:
    import onnx

    for tensor in _tensors(model):
        if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise BadFile(f"weights such as {tensor.name!r} lie outside the file", where=str(path))


def _tensors(message: Message) -> Iterator[Any]:
    """Yield every tensor in a message: initializers, sparse ones, attributes, those of subgraphs and of functions."""
    import onnx

    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in [value] if isinstance(value, Message) else value:
            if isinstance(part, onnx.TensorProto):
                yield part
            yield from _tensors(part)
