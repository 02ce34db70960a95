"""What the labels of a table mean: names of classes, and numbers of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from models.columns import listed
from models.errors import BadInput, nearest

if TYPE_CHECKING:  # a device that only answers has no reader of tables
    from models.data import Label, Table


def labels_of(table: Table) -> list[Label]:
    """Return the label of every row.

    Raises:
        BadInput: the table has no labels.
    """
    if table.labels is None:
        raise BadInput("there is no label column", where=table.source, fix="Name it, or give labelled data.")
    return table.labels


def unknown(label: object, row: int, table: Table, names: Sequence[str], *, kind: str = "label") -> BadInput:
    """Return the error that a row, counted from 1, has a label which is none of `names`."""
    return BadInput(
        f"row {row} has the {kind} {label!r}, which is not known",
        where=table.source,
        fix=f"Known {kind}s: {listed(names)}.{nearest(str(label), names)}",
    )


def label_names(table: Table) -> tuple[str, ...]:
    """Return the distinct labels of a table as class names, numbers in numerical order.

    Raises:
        BadInput: the table has no labels, only one, or its labels are fractions.
    """
    labels = labels_of(table)
    distinct = set(labels)
    if any(isinstance(value, float) for value in distinct):
        raise BadInput("the labels are fractions, which name no classes", where=table.source)
    if len(distinct) < 2:
        raise BadInput(f"all rows have the same label {labels[0]!r}", where=table.source)
    return tuple(str(value) for value in sorted(distinct, key=_label_order))


def _label_order(value: Label) -> tuple[bool, float, str]:
    return (False, float(value), "") if isinstance(value, (int, float)) else (True, 0.0, str(value))


def class_targets(table: Table, names: Sequence[str]) -> list[int]:
    """Return the class number of every row, -1 for every row when the table is unlabelled.

    A label is the class of that name; a whole number that is no name is the class of that number, unless all names
    are numbers themselves.

    Raises:
        BadInput: a label is not known; row, label and known labels are named.
    """
    if table.labels is None:
        return [-1] * len(table)
    by_name: dict[Label, int] = {name: number for number, name in enumerate(names)}
    by_value: dict[Label, int] = {}
    if not all(name.lstrip("-").isdigit() for name in names):
        by_value = {number: number for number in range(len(names))}
    targets = []
    for row, value in enumerate(table.labels, start=1):
        target = by_name.get(str(value), by_value.get(value))
        if target is None:
            raise unknown(value, row, table, names)
        targets.append(target)
    return targets
