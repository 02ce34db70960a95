"""Sections and tables of the page."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import TypeAlias

from compress.report.markup import Markup, el

Cell: TypeAlias = "Markup | str"


def section(title: str, note: str, *content: Markup | None) -> Markup:
    """Return a titled part of the page; the note says how to read it."""
    said = el("p", note.replace(" %", "\N{NO-BREAK SPACE}%"), class_="note") if note else None
    return el("section", el("h2", title), said, *content)


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    label: str,
    numbers: AbstractSet[int] = frozenset(),
    class_: str | None = None,
    cells: Sequence[str] = (),
) -> Markup:
    """Return a table that scrolls sideways on narrow screens; the first cell of a row is its heading.

    `numbers` are the columns set flush right; `cells` are classes of the columns' cells, where they have any. With the
    class `stacked` a row becomes a block on narrow screens, each of its figures under its column's name.
    """

    def kind(column: int) -> str | None:
        own = cells[column] if column < len(cells) else ""
        return " ".join(word for word in ("n" if column in numbers else "", own) if word) or None

    stacked = "stacked" in (class_ or "").split()
    head = el("tr", [el("th", name, scope="col", class_=kind(k)) for k, name in enumerate(heads)])
    body = [
        el(
            "tr",
            el("th", row[0], scope="row"),
            [
                el("td", cell, class_=kind(k), data_label=heads[k] if stacked else None)
                for k, cell in enumerate(row[1:], 1)
            ],
        )
        for row in rows
    ]
    inner = el("table", el("thead", head), el("tbody", body), class_=class_, aria_label=label)
    return el("div", inner, class_="scroll", tabindex=0, role="region", aria_label=f"{label}, table")
