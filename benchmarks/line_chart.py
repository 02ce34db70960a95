"""Lines with intervals over lengths, as SVG: what several benchmarks draw into docs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import NamedTuple

from compress.report.axes import Scale
from compress.report.markup import Markup, el

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 430, 46, 100, 30, 42
STYLE = """
svg .line { fill: none; stroke: currentColor; stroke-width: 1.8; } svg .point { fill: currentColor; }
svg .of-0 { color: var(--accent); } svg .of-1 { color: var(--good); } svg .of-2 { color: var(--bad); }
svg text.kind { fill: currentColor; font-weight: 600; }
"""


class Point(NamedTuple):
    """A place on a line: a length in tokens, a value with its interval, and what is told of it."""

    tokens: int
    value: float
    low: float
    high: float
    told: str


def line_chart(
    lines: Mapping[str, Sequence[Point]], *, caption: str, range_: tuple[float, float], reference: str | None = None
) -> str:
    """Return an SVG of up to three named lines, both axes logarithmic; `range_` is what the upright one shows at least.

    `caption` says what the values are, and `reference` names the value 1.
    """
    points = [point for line in lines.values() for point in line]
    ends = [end for point in points for end in (point.low, point.value, point.high) if 0 < end < 1e3]
    tokens = sorted({point.tokens for point in points})
    across = Scale(tokens[0], tokens[-1], LEFT + 12, WIDTH - RIGHT, log=True)
    up = Scale(min(range_[0], *ends) * 0.95, max(range_[1], *ends) * 1.05, HEIGHT - BOTTOM, TOP, log=True)
    marks: list[Markup] = [el("text", f"{caption} (log)", x=4, y=14, class_="caption")]
    for value in up.ticks(8):
        marks.append(el("line", x1=LEFT, x2=WIDTH - RIGHT, y1=up(value), y2=up(value), class_="grid"))
        marks.append(el("text", f"{value:g}", x=LEFT - 8, y=up(value) + 4, text_anchor="end", class_="tick"))
    if reference is not None:
        marks.append(el("line", x1=LEFT, x2=WIDTH - RIGHT, y1=up(1), y2=up(1), class_="reference"))
        marks.append(el("text", reference, x=WIDTH - RIGHT + 9, y=up(1) + 4, class_="tick"))
    for length in tokens:
        name = el("text", f"{length:,}", x=across(length), y=HEIGHT - 24, text_anchor="middle", class_="tick")
        marks += [name, el("line", x1=across(length), x2=across(length), y1=TOP, y2=HEIGHT - BOTTOM, class_="grid")]
    marks.append(el("text", "tokens (log)", x=WIDTH - RIGHT, y=HEIGHT - 6, text_anchor="end", class_="caption"))
    marks += [_line(name, line, across, up, number) for number, (name, line) in enumerate(lines.items())]
    told = "; ".join(f"{name} at {point.tokens}: {point.value:.3g}" for name, line in lines.items() for point in line)
    style = (resources.files("compress.report") / "style.css").read_text(encoding="utf-8") + STYLE
    label = f"{caption[0].upper()}{caption[1:]}. {told}."
    drawn = el("svg", marks, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=label)
    head, rest = drawn.text.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>{rest}\n'


def _line(name: str, line: Sequence[Point], across: Scale, up: Scale, number: int) -> Markup:
    places = [(across(point.tokens), up(point.value)) for point in line]
    marks = [el("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in places), class_="line")]
    for point, (x, y) in zip(line, places, strict=True):
        marks.append(el("line", x1=x, x2=x, y1=up(point.low), y2=up(point.high), class_="line"))
        marks.append(el("circle", el("title", f"{name}, {point.told}"), cx=x, cy=y, r=3, class_="point"))
    x, y = places[-1]
    return el("g", marks, el("text", name, x=x + 9, y=y + 4, class_="kind"), class_=f"of-{number}")
