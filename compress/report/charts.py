"""Drawings beside the path: what layers kept, verdicts against their bounds, the course of a training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from compress.record import LayerRecord, Verdict
from compress.report import wording
from compress.report.axes import Scale, label, padded
from compress.report.markup import Markup, el

MANY_HEADS = 24  # more are drawn as one bar
HEADS = 98.0  # px for the heads of a layer


def draw_layers(layers: Sequence[LayerRecord], teacher: Sequence[LayerRecord], *, stage: str) -> Markup:
    """Return heads and FFN neurons of each layer, drawn against the teacher's full widths; heads that read an encoder
    have a row of their own.
    """
    every = (*teacher, *layers)
    heads = max([1, *(one.heads for one in every), *(one.cross_heads or 0 for one in every)])
    ffn = max([1, *(one.ffn for one in every)])
    row, top, width = 21, 22, 310
    told = "; ".join(_told(k, one) for k, one in enumerate(layers, 1))
    marks: list[Markup] = [
        el("text", f"heads (of {heads})", x=26, y=12, class_="tick"),
        el("text", f"FFN neurons (of {ffn})", x=162, y=12, class_="tick"),
    ]
    y = top
    for k, one in enumerate(layers, 1):
        marks += _row_of_heads(str(k), one.heads, heads, y)
        marks += [el("g", el("title", f"{one.ffn} of {ffn} FFN neurons"), *_bar(162, 106, y, one.ffn / ffn))]
        marks += [el("text", str(one.ffn), x=width - 2, y=y + 11, text_anchor="end", class_="figures")]
        if one.cross_heads is not None:
            y += row
            marks += _row_of_heads("+", one.cross_heads, heads, y)
        y += row
    height = y + 2
    return el(
        "svg", *marks, viewBox=f"0 0 {width} {height}", role="img", aria_label=f"{stage}. {told}.", class_="layers"
    )


def _told(number: int, layer: LayerRecord) -> str:
    crossing = "" if layer.cross_heads is None else f" and {layer.cross_heads} that read the encoder"
    return f"layer {number}: {layer.heads} heads{crossing}, FFN {layer.ffn}"


def _row_of_heads(name: str, kept: int, full: int, y: float) -> list[Markup]:
    return [
        el("text", name, x=18, y=y + 11, text_anchor="end", class_="tick"),
        el("g", el("title", f"{kept} of {full} heads"), *_heads(kept, full, y)),
        el("text", str(kept), x=142, y=y + 11, text_anchor="end", class_="figures"),
    ]


def _heads(kept: int, full: int, y: float) -> list[Markup]:
    if full > MANY_HEADS:
        return _bar(26, HEADS, y, kept / full)
    cell = HEADS / full
    gap = 2.0 if cell > 6 else 1.0
    return [
        el(
            "rect",
            x=26 + k * cell,
            y=y,
            width=cell - gap,
            height=14,
            rx=1.5,
            class_="kept" if k < kept else "cut",
        )
        for k in range(full)
    ]


UNITS = {"accuracy": "pt", "agreement": "%"}  # of gates that are judged on shares; the others on ratios


def _bar(x: float, width: float, y: float, share: float) -> list[Markup]:
    marks = [el("rect", x=x, y=y, width=width, height=14, rx=1.5, class_="cut")]
    if share > 0:
        marks.append(el("rect", x=x, y=y, width=max(1.0, width * share), height=14, rx=1.5, class_="kept"))
    return marks


def verdict_scale(verdicts: Sequence[Verdict], *, width: float) -> Scale:
    """Return the scale that all verdicts of one gate share, in points for accuracy, in percent for agreement."""
    scale = 100.0 if verdicts[0].gate in UNITS else 1.0
    none = 0.0 if verdicts[0].gate == "accuracy" else 1.0
    values = [
        none * scale,
        *(x * scale for one in verdicts for x in (one.low, one.estimate, one.high or one.low, one.bound)),
    ]
    low, high = padded(min(values), max(values), share=0.1)
    return Scale(low, high, 6.0, width - 6.0)


def draw_verdict(verdict: Verdict, scale: Scale, *, width: int) -> Markup:
    """Return a verdict's estimate and one-sided bounds against what it had to reach."""
    factor = 100.0 if verdict.gate in UNITS else 1.0
    low, at, bound = (scale(x * factor) for x in (verdict.low, verdict.estimate, verdict.bound))
    high = scale.end if verdict.high is None else scale(verdict.high * factor)
    ticks = scale.ticks(5)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    sign = UNITS.get(verdict.gate, wording.TIMES)
    marks = [
        el("rect", x=bound, y=3, width=max(0.0, scale.end + 6 - bound), height=28, class_="allowed"),
        el("line", x1=0, x2=width, y1=31, y2=31, class_="axis"),
        *(
            el("text", label(tick, step), x=scale(tick), y=44, text_anchor="middle", class_="tick")
            for tick in ticks
            if 8 < scale(tick) < width - 14
        ),
        el("text", sign, x=width, y=44, text_anchor="end", class_="tick"),
        el("line", x1=bound, x2=bound, y1=1, y2=34, class_="bound"),
        el("line", x1=low, x2=high, y1=17, y2=17, class_="interval"),
        el("line", x1=low, x2=low, y1=10, y2=24, class_="interval"),
        el("circle", cx=at, cy=17, r=4.2, class_="estimate"),
    ]
    return el(
        "svg",
        el("title", verdict.message),
        *marks,
        viewBox=f"0 0 {width} 48",
        role="img",
        aria_label=f"{verdict.gate} of {verdict.stage}: {verdict.message}",
        class_=f"verdict-drawing {'passed' if verdict.passed else 'missed'}",
    )


def training_curves(details: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Return every curve of a stage's training, name -> (step, value), from `details["training"]["points"]`.

    What is not a number is left out: details belong to the stages, and a report must not fail on them.
    """
    training = details.get("training")
    points = training.get("points") if isinstance(training, Mapping) else None
    curves: dict[str, list[tuple[float, float]]] = {}
    for point in points if isinstance(points, (list, tuple)) else ():
        if not isinstance(point, Mapping) or not _number(point.get("step")):
            continue
        losses = point.get("losses")
        values = {**(losses if isinstance(losses, Mapping) else {}), "validation score": point.get("score")}
        for name, value in values.items():
            if _number(value):
                curves.setdefault(str(name), []).append((float(point["step"]), float(value)))
    return curves


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def draw_curve(name: str, points: Sequence[tuple[float, float]], *, stage: str) -> Markup:
    """Return one curve of a training, with its first and last values written."""
    width, height = 220, 96
    low, high = padded(min(y for _, y in points), max(y for _, y in points))
    across = Scale(0.0, max(1.0, max(x for x, _ in points)), 4, width - 8)
    up = Scale(low, high, height - 20, 24)
    line = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
    first, last = points[0][1], points[-1][1]
    return el(
        "svg",
        el("text", name, x=4, y=12, class_="name"),
        el("text", f"{first:.3g} \N{RIGHTWARDS ARROW} {last:.3g}", x=width - 4, y=12, text_anchor="end", class_="tick"),
        el("line", x1=4, x2=width - 4, y1=height - 16, y2=height - 16, class_="axis"),
        el("text", "0", x=4, y=height - 3, class_="tick"),
        el("text", f"step {points[-1][0]:.0f}", x=width - 4, y=height - 3, text_anchor="end", class_="tick"),
        el("polyline", points=line, class_="curve"),
        *_ends(points, across, up),
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=f"{stage}, {name}: from {first:.3g} to {last:.3g} over {points[-1][0]:.0f} steps",
        class_="curve-drawing",
    )


def _ends(points: Sequence[tuple[float, float]], across: Scale, up: Scale) -> Iterator[Markup]:
    shown = points if len(points) <= 12 else points[-1:]
    for x, y in shown:
        yield el("circle", el("title", f"step {x:.0f}: {y:.4g}"), cx=across(x), cy=up(y), r=2.4, class_="centre")
