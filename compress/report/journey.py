"""The path of a run, or the points of a search: accuracy over latency, the area of a point its size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias, final

from compress.report import wording
from compress.report.axes import Scale, label, padded
from compress.report.data import Accuracy, Report, StageReport
from compress.report.markup import Markup, el

Box: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom

LEFT, RIGHT, TOP, BOTTOM = 46.0, 14.0, 30.0, 42.0
CHARACTER, LINE = 6.4, 15.0  # generous size of the drawn letters
REACH, STEP = 108, 9  # px around a point in which a place for its label is looked for
CLEAR, FAR = 5.0, 16.0  # px between a point and its label: wished for, and from where on a line leads to it


@final
@dataclass(frozen=True, slots=True)
class _Point:
    """A stage where it is drawn."""

    stage: StageReport
    accuracy: Accuracy
    x: float
    y: float
    low: float
    high: float
    radius: float
    first: bool


def draw_journey(report: Report, *, width: int, height: int) -> Markup | None:
    """Return the drawing, `width` by `height` px, or None where fewer than two stages can be placed.

    Without latencies the horizontal axis is the size.
    """
    timed = [stage for stage in report.stages if stage.latency is not None]
    stages = timed if len(timed) >= 2 else [stage for stage in report.stages if stage.bytes]
    if len(stages) < 2:
        return None
    by_time = len(timed) >= 2
    across, up = _scales(report, stages, width=width, height=height, by_time=by_time)
    points = _points(report, stages, across, up, largest=26.0 if width > 500 else 17.0, by_time=by_time)
    what = "latency p50 (ms, batch 1)" if by_time else "size (MB)"
    told = "; ".join(f"{point.stage.stage}: {_told(report, point)}" for point in points)
    return el(
        "svg",
        _frame(report, across, up, width, height, f"{what}, less is better"),
        el("line", x1=LEFT, x2=width - RIGHT, y1=points[0].y, y2=points[0].y, class_="reference"),
        _frontier(points) if report.is_search else _arrows(points),
        [_dot(report, point) for point in points],
        _labels(points, width, height),
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=f"{report.metric.name} over {what}, stage by stage. {told}.",
        class_="journey",
    )


def _value(stage: StageReport, *, by_time: bool) -> float:
    return stage.latency.p50_ms if by_time and stage.latency is not None else stage.bytes / 1e6


def _on(report: Report, stage: StageReport) -> Accuracy:
    return stage.accuracy.test if report.headline.data == "test" and stage.accuracy.test else stage.accuracy.validation


def _scales(
    report: Report, stages: list[StageReport], *, width: int, height: int, by_time: bool
) -> tuple[Scale, Scale]:
    values = [_value(stage, by_time=by_time) for stage in stages]
    low, high = min(values), max(values)
    log = high > 3 * low
    if log:
        room = (high / low) ** 0.16
        low, high = low / room, high * room
    else:
        low, high = padded(low, high, share=0.22)
        low = max(low, 0.0)
    accuracies = [_on(report, stage) for stage in stages]
    bottom, top = padded(min(one.low for one in accuracies), max(one.high for one in accuracies), share=0.12)
    return Scale(low, high, LEFT, width - RIGHT, log), Scale(bottom, top, height - BOTTOM, TOP)


def _points(
    report: Report, stages: list[StageReport], across: Scale, up: Scale, *, largest: float, by_time: bool
) -> list[_Point]:
    most = max(stage.bytes for stage in stages) or 1
    points = []
    for stage in stages:
        accuracy = _on(report, stage)
        points.append(
            _Point(
                stage=stage,
                accuracy=accuracy,
                x=across(_value(stage, by_time=by_time)),
                y=up(accuracy.estimate),
                low=up(accuracy.low),
                high=up(accuracy.high),
                radius=max(3.5, largest * math.sqrt(stage.bytes / most)),
                first=stage is report.stages[0],
            )
        )
    return points


def _frame(report: Report, across: Scale, up: Scale, width: int, height: int, title: str) -> Iterator[Markup]:
    paired = report.metric.paired_test
    scale = 100.0 if paired == "proportions" else 1.0
    what = f"{report.metric.name} on {report.headline.data}" + (", %" if paired == "proportions" else "")
    yield el("text", what, x=2, y=12, class_="caption")
    heights = Scale(up.low * scale, up.high * scale, up.start, up.end).ticks(5)
    step = heights[1] - heights[0] if len(heights) > 1 else 1.0
    for value in heights:
        y = up(value / scale)
        yield el("line", x1=LEFT, x2=width - RIGHT, y1=y, y2=y, class_="grid")
        yield el("text", label(value, step), x=LEFT - 7, y=y + 4, text_anchor="end", class_="tick")
    base = height - BOTTOM
    for value in across.ticks(7 if width > 500 else 4):
        x = across(value)
        yield el("line", x1=x, x2=x, y1=base, y2=base + 4, class_="axis")
        yield el("text", f"{value:.4g}", x=x, y=base + 17, text_anchor="middle", class_="tick")
    yield el("line", x1=LEFT, x2=width - RIGHT, y1=base, y2=base, class_="axis")
    yield el("text", title, x=width - RIGHT, y=base + 35, text_anchor="end", class_="caption")


def _arrow(one: _Point, two: _Point) -> Markup:
    """Return an arrow between the rims of two points; nothing where they touch."""
    across, down = two.x - one.x, two.y - one.y
    length = math.hypot(across, down)
    start, end = one.radius + 3, length - two.radius - 4
    if end - start < 10:
        return el("g")
    ux, uy = across / length, down / length
    x1, y1, x2, y2 = one.x + ux * start, one.y + uy * start, one.x + ux * end, one.y + uy * end
    wing = [(x2 - ux * 8 - uy * side, y2 - uy * 8 + ux * side) for side in (3.6, -3.6)]
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in [(x2, y2), *wing])
    return el(
        "g",
        el("line", x1=x1, y1=y1, x2=x2 - ux * 6, y2=y2 - uy * 6, class_="arrow"),
        el("polygon", points=corners, class_="arrowhead"),
    )


def _arrows(points: list[_Point]) -> list[Markup]:
    return [_arrow(one, two) for one, two in zip(points, points[1:], strict=False)]


def _frontier(points: list[_Point]) -> Markup:
    """Return the steps through the points that no other point beats in both accuracy and cost."""
    best: list[_Point] = []
    for point in sorted(points, key=lambda one: (one.x, one.y)):
        if not best or point.y < best[-1].y:  # up is less
            best.append(point)
    corners = [f"M{best[0].x:.1f},{best[0].y:.1f}", *(f"H{point.x:.1f}V{point.y:.1f}" for point in best[1:])]
    return el("path", d="".join(corners), class_="frontier")


def _dot(report: Report, point: _Point) -> Markup:
    kind = "teacher" if point.first else "failed" if _failed(point.stage) else "candidate"
    bars = [el("line", x1=point.x, x2=point.x, y1=point.low, y2=point.high)]
    bars += [el("line", x1=point.x - 4, x2=point.x + 4, y1=y, y2=y) for y in (point.low, point.high)]
    return el(
        "g",
        el("title", f"{point.stage.stage}: {_told(report, point)}"),
        el("circle", cx=point.x, cy=point.y, r=point.radius, class_="area"),
        el("g", bars, class_="whisker"),
        el("circle", cx=point.x, cy=point.y, r=2.6, class_="centre"),
        class_=f"mark {kind}",
    )


def _failed(stage: StageReport) -> bool:
    return not all(verdict.passed for verdict in stage.verdicts)


def _told(report: Report, point: _Point) -> str:
    paired, stage = report.metric.paired_test, point.stage
    time = "" if stage.latency is None else f", {wording.milliseconds(stage.latency.p50_ms)} ms"
    return (
        f"{report.metric.name} {wording.share(point.accuracy.estimate, paired)}{wording.unit(paired)} "
        f"({wording.accuracy_interval(point.accuracy, paired)}){time}, {wording.megabytes(stage.bytes)} MB"
    )


def _labels(points: list[_Point], width: int, height: int) -> Iterator[Markup]:
    """Yield the names and figures of the points, each at the nearest place that hides nothing."""
    taken: list[Box] = [(LEFT, points[0].y - 1, width - RIGHT, points[0].y + 1)]
    for point in points:
        taken.append((point.x - point.radius, point.y - point.radius, point.x + point.radius, point.y + point.radius))
        taken.append((point.x - 4, point.high, point.x + 4, point.low))
    for one, two in zip(points, points[1:], strict=False):
        steps = max(1, int(math.hypot(two.x - one.x, two.y - one.y) / 12))
        for k in range(steps):
            x, y = one.x + (two.x - one.x) * k / steps, one.y + (two.y - one.y) * k / steps
            taken.append((x - 6, y - 4, x + 6, y + 4))
    for point in points:
        stage = point.stage
        time = "" if stage.latency is None else f"{wording.milliseconds(stage.latency.p50_ms)} ms, "
        lines = (stage.stage, f"{time}{wording.megabytes(stage.bytes)} MB")
        box = _free(point, max(len(line) for line in lines) * CHARACTER, 2 * LINE, taken, width, height)
        taken.append(box)
        middle = (box[0] + box[2]) / 2
        x, y = _nearest(box, point)
        away = math.hypot(x - point.x, y - point.y)
        if away > point.radius + FAR:
            rim = point.radius / away
            end = (point.x + (x - point.x) * rim, point.y + (y - point.y) * rim)
            yield el("line", x1=x, y1=y, x2=end[0], y2=end[1], class_="leader")
        yield el("text", lines[0], x=middle, y=box[1] + 12, text_anchor="middle", class_="name")
        yield el("text", lines[1], x=middle, y=box[1] + 12 + LINE - 1, text_anchor="middle", class_="figures")


def _free(point: _Point, wide: float, tall: float, taken: list[Box], width: int, height: int) -> Box:
    """Return the box for a label that covers least of what is taken and is near its point."""
    places = []
    for across in range(-REACH, REACH + 1, STEP):
        for down in range(-REACH, REACH + 1, STEP):
            x = min(max(point.x + across - wide / 2, LEFT + 2), width - RIGHT - wide)
            y = min(max(point.y + down - tall / 2, 2.0), height - BOTTOM - tall)
            box = (x, y, x + wide, y + tall)
            near = _nearest(box, point)
            gap = math.hypot(near[0] - point.x, near[1] - point.y) - point.radius
            places.append((3 * abs(gap - CLEAR), box))
    best, least = places[0][1], math.inf
    for far, box in sorted(places):
        if far >= least:  # so is every place that follows
            break
        cost = far + sum(_overlap(box, other) for other in taken)
        if cost < least:
            best, least = box, cost
    return best


def _nearest(box: Box, point: _Point) -> tuple[float, float]:
    """Return the place within a box that is nearest to a point."""
    return min(max(point.x, box[0]), box[2]), min(max(point.y, box[1]), box[3])


def _overlap(one: Box, two: Box) -> float:
    across = min(one[2], two[2]) - max(one[0], two[0])
    down = min(one[3], two[3]) - max(one[1], two[1])
    return across * down if across > 0 and down > 0 else 0.0
