"""What the tasks that write a text behind a source have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.errors import BadInput, Unsupported
from models.shape import HeadShape, ModelShape
from models.targets import TextTargets, Writes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from models.data import Table
    from models.encoded import Encoded


def require_writer(shape: ModelShape, writes: Writes, *, asked: str, where: str) -> None:
    """Raise BadInput where a model cannot write what a task asks for."""
    behind = shape.decoder is not None
    if shape.output is None:
        raise BadInput(f"{asked} needs a model that writes, and this one does not", where=where)
    if behind is not (writes is Writes.BEHIND_SOURCE):
        needs = "a model that reads a source and writes behind it" if not behind else "a model that goes on from a text"
        raise BadInput(f"{asked} needs {needs}", where=where)


def no_head(asked: str, *, where: str) -> HeadShape:
    """Raise BadInput: no head is made for what writes."""
    raise BadInput(f"{asked} is written, and no head answers it", where=where, fix="Give a model that writes.")


def not_answered(asked: str) -> Unsupported:
    """Return the error that what is written is no answer that logits give."""
    return Unsupported(f"the answer of {asked} is written word by word, and not made of logits", where="predict")


def expected_texts(table: Table) -> TextTargets:
    """Return the first text that is right for each row.

    Raises:
        BadInput: a row's label is no text.
    """
    if table.labels is None:
        return TextTargets(None)
    return TextTargets([_texts(label, row, table)[0] for row, label in enumerate(table.labels, start=1)])


def right_texts(data: Encoded) -> list[tuple[str, ...]]:
    """Return all texts that are right for each row.

    Raises:
        BadInput: they are not known.
    """
    table = data.table
    if table is None or table.labels is None:
        raise BadInput("nothing says what should be written, so nothing can be judged", where="data")
    return [_texts(table.labels[row], row + 1, table) for row in data.examples.tolist()]


def texts_written(outputs: npt.NDArray[Any], data: Encoded) -> list[str]:
    """Return the texts of token numbers (rows, longest) as `models.evaluation.written_tokens` returns them."""
    tokens: npt.NDArray[np.int32] = outputs
    rows = [line[line >= 0].tolist() for line in tokens]
    return [text.strip() for text in data.written.tokenizing.decoded(rows)]


def _texts(label: object, row: int, table: Table) -> tuple[str, ...]:
    texts = label if isinstance(label, tuple) else (label,)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise BadInput(f"row {row} has {label!r}, which is no text to write", where=table.source)
    return texts
