"""Confusion matrices: numbers in cells for few classes, a heat map and the largest confusions for many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

from compress.report.markup import Markup, el

FEW = 8  # classes whose counts are written into the cells
NAMED = 32  # classes whose names still fit beside a heat map
STEPS = 8  # shades of a heat map
SIDE, CAPTION = 360.0, 16.0  # px: the whole drawing, and the room for the words at its edges
WIDE = 0.54  # a generous letter, as a share of its size


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


@final
@dataclass(frozen=True, slots=True)
class _Grid:
    """Where the cells of a matrix lie: names and captions have the room left of it and above it."""

    names: tuple[str, ...]  # none where they would not fit
    cell: float
    left: float
    top: float
    letter: float  # px, size of the names

    @classmethod
    def of(cls, names: Sequence[str]) -> _Grid:
        size = len(names)
        if size > NAMED:
            return cls((), (SIDE - CAPTION - 2) / size, CAPTION, CAPTION, 0.0)
        short = tuple(name if len(name) <= 15 else name[:14] + "\N{HORIZONTAL ELLIPSIS}" for name in names)
        letter = min(12.0, max(7.5, 0.8 * (SIDE - 100) / size))
        wide = 8 + letter * WIDE * max(map(len, short), default=0)
        cell = (SIDE - CAPTION - wide - 2) / size
        return cls(short, cell, CAPTION + wide, CAPTION + (wide if wide > cell else letter + 8), letter)

    @property
    def turned(self) -> bool:
        """Return whether the names above the columns stand upright, because they are wider than a cell."""
        return self.top - CAPTION > self.letter + 8


def draw_confusion(counts: list[list[int]], labels: Sequence[str], *, title: str) -> Markup:
    """Return a matrix: rows are expected, columns predicted classes; the shade is the share of the row."""
    size = len(counts)
    grid = _Grid.of([labels[k] if k < len(labels) else str(k) for k in range(size)])
    side, height = grid.cell * size, grid.top + grid.cell * size + 2
    right, total = sum(counts[k][k] for k in range(size)), sum(map(sum, counts))
    return el(
        "svg",
        _cells(counts, grid) if size <= FEW else _heat(counts, grid),
        el("rect", x=grid.left, y=grid.top, width=side, height=side, class_="frame"),
        _names(grid),
        el("text", "predicted", x=SIDE - 2, y=10, text_anchor="end", class_="caption"),
        el("text", "expected", transform=f"translate(10 {height - 2:.0f}) rotate(-90)", class_="caption"),
        viewBox=f"0 0 {SIDE:.0f} {height:.1f}",
        role="img",
        aria_label=f"Confusion matrix of {title}, {size} classes: {right} of {total} examples on the diagonal",
        class_="confusion",
    )


def _names(grid: _Grid) -> Iterator[Markup]:
    style = f"font-size:{grid.letter:.1f}px"
    for k, name in enumerate(grid.names):
        x, y = grid.left + (k + 0.5) * grid.cell, grid.top + (k + 0.5) * grid.cell
        base = y + grid.letter / 3
        yield el("text", name, x=grid.left - 5, y=base, text_anchor="end", class_="tick", style=style)
        if grid.turned:
            turn = f"translate({x + grid.letter / 3:.1f} {grid.top - 5:.1f}) rotate(-90)"
            yield el("text", name, transform=turn, class_="tick", style=style)
        else:
            yield el("text", name, x=x, y=grid.top - 6, text_anchor="middle", class_="tick", style=style)


def _cells(counts: list[list[int]], grid: _Grid) -> Iterator[Markup]:
    cell, told = grid.cell, grid.cell > 50
    for row, values in enumerate(counts):
        whole = sum(values) or 1
        for column, value in enumerate(values):
            share = value / whole
            x, y = grid.left + column * cell, grid.top + row * cell
            shade = 0.04 + 0.86 * share if value else 0
            kind, on = "right" if row == column else "wrong", " on" if share > 0.5 else ""
            yield el("rect", x=x, y=y, width=cell, height=cell, class_=kind, fill_opacity=shade)
            kind, size = f"count{on}" if value else "count none", min(15.0, 1.45 * cell / len(str(value)))
            lines = [(str(value), 0 if told else 5, kind, size)]
            lines += [(f"{100 * share:.1f} %", 17, f"rate{on}", 11.5)] if told else []
            for text, below, kind, size in lines:
                place, style = {"x": x + cell / 2, "y": y + cell / 2 + below}, f"font-size:{size:.1f}px"
                yield el("text", text, **place, text_anchor="middle", class_=kind, style=style)


def _heat(counts: list[list[int]], grid: _Grid) -> list[Markup]:
    """Return one path per shade: a matrix of 150 classes stays small."""
    paths: dict[tuple[str, int], list[str]] = {}
    cell = grid.cell
    for row, values in enumerate(counts):
        whole = sum(values) or 1
        for column, value in enumerate(values):
            if not value:
                continue
            step = max(1, round((value / whole) ** 0.5 * STEPS))  # the root lets rare confusions be seen
            kind = "right" if row == column else "wrong"
            place = f"M{grid.left + column * cell:.2f} {grid.top + row * cell:.2f}"
            square = f"{place}h{cell:.2f}v{cell:.2f}h-{cell:.2f}z"
            paths.setdefault((kind, step), []).append(square)
    return [
        el("path", d="".join(squares), class_=kind, fill_opacity=0.06 + 0.9 * step / STEPS)
        for (kind, step), squares in sorted(paths.items())
    ]
