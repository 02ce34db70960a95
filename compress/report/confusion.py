"""Confusion matrices: numbers in cells for few classes, a heat map and the largest confusions for many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from compress.report.markup import Markup, el

FEW = 8  # classes whose counts are written into the cells
NAMED = 32  # classes whose names still fit beside a heat map
STEPS = 8  # shades of a heat map
SIDE = 360.0


@final
@dataclass(frozen=True, slots=True)
class Mistake:
    """Examples of one class taken for another, by the candidate and by the teacher."""

    expected: int
    predicted: int
    candidate: int
    teacher: int


def largest_mistakes(candidate: list[list[int]], teacher: list[list[int]], *, count: int) -> list[Mistake]:
    """Return the candidate's most frequent confusions, at most `count`, with the teacher's counts of the same."""
    found = [
        Mistake(row, column, value, teacher[row][column])
        for row, values in enumerate(candidate)
        for column, value in enumerate(values)
        if row != column and value
    ]
    return sorted(found, key=lambda one: (-one.candidate, one.expected, one.predicted))[:count]


def draw_confusion(counts: list[list[int]], labels: Sequence[str], *, title: str) -> Markup:
    """Return a matrix: rows are expected, columns predicted classes; the shade is the share of the row."""
    size = len(counts)
    names = [labels[k] if k < len(labels) else str(k) for k in range(size)]
    margin = min(110.0, 8.0 + 6.0 * max(len(_cut(name)) for name in names)) if size <= NAMED else 20.0
    cell = (SIDE - margin - 2) / size
    right = sum(counts[k][k] for k in range(size))
    total = sum(map(sum, counts))
    marks = _cells(counts, margin, cell) if size <= FEW else _heat(counts, margin, cell)
    marks.append(el("rect", x=margin, y=margin, width=cell * size, height=cell * size, class_="frame"))
    if size <= NAMED:
        marks += _names(names, margin, cell)
    marks += [
        el("text", "predicted", x=SIDE - 2, y=9, text_anchor="end", class_="caption"),
        el("text", "expected", transform=f"translate(9 {SIDE - 2:.0f}) rotate(-90)", class_="caption"),
    ]
    return el(
        "svg",
        *marks,
        viewBox=f"0 0 {SIDE:.0f} {SIDE:.0f}",
        role="img",
        aria_label=f"Confusion matrix of {title}, {size} classes: {right} of {total} examples on the diagonal",
        class_="confusion",
    )


def _cut(name: str) -> str:
    return name if len(name) <= 15 else name[:14] + "\N{HORIZONTAL ELLIPSIS}"


def _names(names: Sequence[str], margin: float, cell: float) -> list[Markup]:
    size = min(12.0, max(7.5, cell * 0.8))
    marks = []
    for k, name in enumerate(names):
        middle = margin + (k + 0.5) * cell
        style = f"font-size:{size:.1f}px"
        marks.append(
            el("text", _cut(name), x=margin - 5, y=middle + size / 3, text_anchor="end", class_="tick", style=style)
        )
        turned = f"translate({middle + size / 3:.1f} {margin - 5:.1f}) rotate(-90)"
        marks.append(el("text", _cut(name), transform=turned, class_="tick", style=style))
    return marks


def _cells(counts: list[list[int]], margin: float, cell: float) -> list[Markup]:
    marks = []
    for row, values in enumerate(counts):
        whole = sum(values) or 1
        for column, value in enumerate(values):
            share = value / whole
            x, y = margin + column * cell, margin + row * cell
            kind = "right" if row == column else "wrong"
            marks += [
                el("rect", x=x, y=y, width=cell, height=cell, class_=kind, fill_opacity=0.04 + 0.86 * share),
                el(
                    "text",
                    value,
                    x=x + cell / 2,
                    y=y + cell / 2 + (0 if cell > 50 else 4),
                    text_anchor="middle",
                    class_="count on" if share > 0.5 else "count",
                ),
            ]
            if cell > 50:
                marks.append(
                    el(
                        "text",
                        f"{100 * share:.1f} %",
                        x=x + cell / 2,
                        y=y + cell / 2 + 17,
                        text_anchor="middle",
                        class_="rate on" if share > 0.5 else "rate",
                    )
                )
    return marks


def _heat(counts: list[list[int]], margin: float, cell: float) -> list[Markup]:
    """Return one path per shade: a matrix of 150 classes stays small."""
    paths: dict[tuple[str, int], list[str]] = {}
    for row, values in enumerate(counts):
        whole = sum(values) or 1
        for column, value in enumerate(values):
            if not value:
                continue
            step = max(1, round((value / whole) ** 0.5 * STEPS))  # the root lets rare confusions be seen
            kind = "right" if row == column else "wrong"
            square = f"M{margin + column * cell:.2f} {margin + row * cell:.2f}h{cell:.2f}v{cell:.2f}h-{cell:.2f}z"
            paths.setdefault((kind, step), []).append(square)
    return [
        el("path", d="".join(squares), class_=kind, fill_opacity=0.06 + 0.9 * step / STEPS)
        for (kind, step), squares in sorted(paths.items())
    ]
