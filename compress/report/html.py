"""The report as one HTML file: nothing is fetched, nothing is run, and every text from data is escaped."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from string import Template

from compress.record import Figure, Paired, Verdict
from compress.report import wording
from compress.report.appendix import appendix
from compress.report.charts import draw_layers, draw_verdict, verdict_scale
from compress.report.confusion import NAMED, draw_confusion, largest_mistakes
from compress.report.data import Accuracy, Report, Span, StageReport
from compress.report.devices import devices
from compress.report.journey import draw_journey
from compress.report.markup import Markup, el, escaped, join
from compress.report.tables import Cell, section, table

ARROW = " \N{RIGHTWARDS ARROW} "
VERDICT_WIDTH = 360
MISTAKES = 12


def render_html(report: Report) -> str:
    """Return the whole page: inline style and drawings, light and dark, for screens of 360 px and up, and for paper."""
    folder = resources.files("compress.report")
    template = Template((folder / "page.html").read_text(encoding="utf-8"))
    parts = (_header, _stages, devices, _journey, _verdicts, _layers, _confusion, appendix)
    return template.substitute(
        title=escaped(f"{report.name}: compression report"),
        style=(folder / "style.css").read_text(encoding="utf-8"),
        body="\n".join(join([part(report)]).text for part in parts),
    )


def _header(report: Report) -> Markup:
    head, stages = report.headline, report.stages
    if head.failed:
        first = head.failed[0]
        verdict, kind = f"\N{BALLOT X} Failed at the {first.gate} gate after {first.stage}", "bad"
    elif not report.passed:
        verdict, kind = "\N{BALLOT X} Failed", "bad"
    elif report.chosen is not None:
        verdict, kind = f"\N{CHECK MARK} {report.chosen} is chosen", "good"
    elif any(stage.verdicts for stage in stages):
        verdict, kind = "\N{CHECK MARK} Passed every gate", "good"
    else:
        verdict, kind = "No gate was asked", "note"
    line = ARROW.join(stage.stage for stage in stages)
    if report.is_search:
        line = f"{len(stages) - 1} points. The search ended: {'; '.join(report.notes)}"
    examples = f"{wording.grouped(head.accuracy.n)} {head.data} examples"
    told = f"{line}. {wording.title(report.metric.name)} is told on {examples}; intervals are two-sided at 95 %."
    return el(
        "header",
        el("p", "Compression report", class_="kicker"),
        el("h1", report.name),
        el("p", verdict, class_=f"banner {kind}"),
        el("p", told, class_="lead"),
        el("dl", _headline(report), class_="headline") if len(stages) > 1 else None,
    )


def _headline(report: Report) -> Iterator[Markup]:
    head, teacher, last = report.headline, report.stages[0], report.last
    paired = report.metric.paired_test
    if last.latency is None or head.speedup is None:
        yield _figure("Speed-up", wording.NONE, "", "Latency was not measured.")
    else:
        p50 = [wording.milliseconds(value) for value in (last.latency.teacher_p50_ms, last.latency.p50_ms)]
        under = (f"p50 {ARROW.join(p50)} ms", f"95 % interval {wording.ratio_interval(head.speedup)}")
        yield _figure("Speed-up", wording.times(head.speedup.estimate), wording.TIMES, *under)
    sizes = f"{ARROW.join(wording.megabytes(one.bytes) for one in (teacher, last))} MB"
    size = wording.NONE if head.size_ratio is None else wording.times(head.size_ratio)
    yield _figure("Smaller", size, wording.TIMES if head.size_ratio is not None else "", sizes)
    name = f"{wording.title(report.metric.name)} against the teacher"
    own = f"{wording.share(head.accuracy.estimate, paired)}{wording.unit(paired)} on {head.data}"
    if head.difference is None:
        yield _figure(name, wording.NONE, "", own)
    else:
        interval = f"95 % interval {wording.points_interval(head.difference, paired)}"
        unit = "points" if paired == "proportions" else ""
        yield _figure(name, wording.points(head.difference.estimate, paired), unit, own, interval)


def _figure(name: str, value: str, unit: str, *under: str) -> Markup:
    big = el("dd", value, el("small", unit) if unit else None, class_="big")
    return el("div", el("dt", name), big, [el("dd", line, class_="under") for line in under])


def _stages(report: Report) -> Markup:
    """Return the table of stages; columns that no stage has a figure for are left out."""
    paired, on = report.metric.paired_test, report.headline.data
    metric = wording.title(report.metric.name)
    unit, points = (", %", ", points") if paired == "proportions" else ("", "")
    latencies = [stage.latency for stage in report.stages]
    columns: list[tuple[str, list[Cell | None]]] = [
        ("Parameters", [wording.count(stage.parameters) for stage in report.stages]),
        ("Size,\N{NO-BREAK SPACE}MB", [wording.megabytes(stage.bytes) for stage in report.stages]),
        (f"{metric} on validation{unit}", [_accuracy(stage.accuracy.validation, paired) for stage in report.stages]),
        (f"{metric} on test{unit}", [_accuracy(stage.accuracy.test, paired) for stage in report.stages]),
        *_besides(report),
        (
            f"Difference on {on}{points}",
            [_difference(getattr(stage.difference, on), paired) for stage in report.stages],
        ),
        ("Same answers elsewhere, %", [_accuracy(stage.foreign, "proportions") for stage in report.stages]),
        ("p50,\N{NO-BREAK SPACE}ms", [None if one is None else wording.milliseconds(one.p50_ms) for one in latencies]),
        ("p95,\N{NO-BREAK SPACE}ms", [None if one is None else wording.milliseconds(one.p95_ms) for one in latencies]),
        ("Speed\N{NON-BREAKING HYPHEN}up", [_speedup(stage.speedup) for stage in report.stages]),
        ("Gates", [_chosen() if stage.stage == report.chosen else _gates(stage) for stage in report.stages]),
    ]
    shown = [(head, cells) for head, cells in columns if any(cell is not None for cell in cells)]
    rows: list[list[Cell]] = [
        [stage.stage, *(cells[k] or wording.NONE for _, cells in shown)] for k, stage in enumerate(report.stages)
    ]
    heads = ["Point" if report.is_search else "Stage", *(head for head, _ in shown)]
    numbers = {k for k, head in enumerate(heads) if k and head != "Gates"}
    timed = any(latencies)
    return section(
        f"{heads[0]}s",
        f"Every {heads[0].lower()} against the original teacher. Small figures are 95 % intervals"
        + ("; latency is one call at batch 1 in ONNX Runtime, timed in turns with the teacher's." if timed else "."),
        table(heads, rows, label="Stages", class_="stacked", numbers=numbers),
    )


def _besides(report: Report) -> Iterator[tuple[str, list[Cell | None]]]:
    """Yield a column for each figure that is told beside the metric, on the data of the headline."""
    on = report.headline.data
    told = [{one.name: one for one in getattr(stage.besides, on) or ()} for stage in report.stages]
    for name in dict.fromkeys(name for each in told for name in each):
        cells: list[Cell | None] = [None if name not in each else _beside(each[name]) for each in told]
        yield f"{wording.title(name)} on {on}", cells


def _beside(value: Figure) -> Markup:
    return _with_interval(wording.share(value.estimate, "bootstrap"), wording.accuracy_interval(value, "bootstrap"))


def _accuracy(value: Accuracy | None, paired: Paired) -> Markup | None:
    return (
        None
        if value is None
        else _with_interval(wording.share(value.estimate, paired), wording.accuracy_interval(value, paired))
    )


def _difference(value: Span | None, paired: Paired) -> Markup | None:
    return (
        None
        if value is None
        else _with_interval(wording.points(value.estimate, paired), wording.points_interval(value, paired))
    )


def _speedup(value: Span | None) -> Markup | None:
    return None if value is None else _with_interval(wording.ratio(value.estimate), wording.ratio_interval(value))


def _with_interval(value: str, interval: str) -> Markup:
    return join([value, el("span", interval, class_="ci")])


def _gates(stage: StageReport) -> Markup | None:
    failed = [verdict.gate for verdict in stage.verdicts if not verdict.passed]
    if failed:
        return join([el("span", f"\N{BALLOT X} {gate}", class_="outcome bad") for gate in failed])
    return el("span", "\N{CHECK MARK} passed", class_="outcome good") if stage.verdicts else None


def _chosen() -> Markup:
    return el("span", "\N{CHECK MARK} chosen", class_="outcome good")


def _journey(report: Report) -> Markup | None:
    wide, narrow = (draw_journey(report, width=width, height=height) for width, height in ((980, 400), (370, 330)))
    if wide is None or narrow is None:
        return None
    by_time = sum(stage.latency is not None for stage in report.stages) > 1
    return section(
        "Accuracy, latency and size" if by_time else "Accuracy and size",
        f"{wording.title(report.metric.name)} on {report.headline.data} with its 95 % interval. The area of a point is "
        "its size; the dashed line is the teacher; a dashed rim marks a failed gate."
        + (" The steps join the points that no other beats in both." if report.is_search else ""),
        el("figure", wide, class_="wide"),
        el("figure", narrow, class_="narrow"),
    )


def _verdicts(report: Report) -> Markup | None:
    verdicts = [verdict for stage in report.stages for verdict in stage.verdicts]
    if not verdicts:
        return None
    rows = []
    for gate in dict.fromkeys(verdict.gate for verdict in verdicts):
        group = [verdict for verdict in verdicts if verdict.gate == gate]
        scale = verdict_scale(group, width=VERDICT_WIDTH)
        for verdict in group:
            mark, kind = ("\N{CHECK MARK} passed", "good") if verdict.passed else ("\N{BALLOT X} failed", "bad")
            head = el(
                "div",
                el("h3", f"{verdict.gate.capitalize()}, {verdict.stage}"),
                el("p", mark, "" if verdict.decidable else " (undecided)", class_=kind),
            )
            said = el("div", el("p", wording.said(verdict)), _advice(verdict), class_="said")
            drawing = el("div", draw_verdict(verdict, scale, width=VERDICT_WIDTH))
            rows.append(el("div", head, drawing, said, class_="verdict-row"))
    return section(
        "Gates",
        "The dot is the estimate, the line its one-sided bounds, the dashed mark what the lower bound (the tick) has "
        "to reach: the shaded side passes. Accuracy in points, speed and size as the teacher's over the candidate's, "
        "judged on validation data; agreement in percent of texts from elsewhere, with the answers before the stage.",
        *rows,
    )


def _advice(verdict: Verdict) -> Markup | None:
    return el("p", verdict.advice, class_="note") if verdict.advice else None


def _layers(report: Report) -> Markup | None:
    teacher = report.stages[0].layers
    if not teacher:
        return None
    panels, shown = [], None
    for stage in report.stages:
        if stage.layers == shown:
            continue
        shown = stage.layers
        layers = f"{len(shown)} layer" + ("" if len(shown) == 1 else "s")
        drawing = draw_layers(shown, teacher, stage=stage.stage)
        panels.append(el("figure", el("figcaption", stage.stage, " ", el("span", layers)), drawing))
    crosses = any(one.cross_heads is not None for one in teacher)
    crossing = "; + are a layer's heads that read the encoder" if crosses else ""
    return section(
        "Heads and FFN neurons kept",
        f"Per layer, against the teacher's full width{crossing}. Stages that change no width are left out.",
        el("div", panels, class_="panels"),
    )


def _confusion(report: Report) -> Markup | None:
    confusion, agreement = report.confusion, report.headline.agreement
    if confusion is None:
        return None
    single = len(report.stages) == 1
    sides = [(report.stages[0].stage, confusion.teacher)]
    sides += [] if single else [(confusion.stage, confusion.candidate)]
    panels = [
        el(
            "figure",
            el("figcaption", name, " ", el("span", f"on {confusion.data}")),
            draw_confusion(counts, report.labels, title=name),
            class_="matrix",
        )
        for name, counts in sides
    ]
    said = "Rows are expected, columns predicted classes; the stronger the colour, the larger the share."
    if agreement is not None:
        low, high = wording.share(agreement.low, "proportions"), wording.share(agreement.high or 1.0, "proportions")
        said += (
            f" The result gives the teacher's label on {wording.share(agreement.estimate, 'proportions')} % of the "
            f"{confusion.data} examples (95 % interval {low}{wording.DASH}{high})."
        )
    if len(confusion.candidate) > NAMED:
        said += f" Classes are in the order of the labels, 0 to {len(confusion.candidate) - 1}."
    mistakes = None
    if len(confusion.candidate) > 2:
        mistakes = _mistakes(report)
    return section("Confusion", said, el("div", panels, class_="panels"), mistakes)


def _mistakes(report: Report) -> Markup | None:
    confusion = report.confusion
    found = [] if confusion is None else largest_mistakes(confusion.candidate, confusion.teacher, count=MISTAKES)
    if confusion is None or not found:
        return None
    names = dict(enumerate(report.labels))
    heads, teacher = ["Expected", "Taken for", f"By {confusion.stage}"], len(report.stages) > 1
    heads += [f"By {report.stages[0].stage}"] if teacher else []
    rows: list[list[Cell]] = [
        [
            names.get(one.expected, str(one.expected)),
            names.get(one.predicted, str(one.predicted)),
            wording.grouped(one.candidate),
            *([wording.grouped(one.teacher)] if teacher else []),
        ]
        for one in found
    ]
    drawn = table(heads, rows, label="Largest confusions", numbers={2, 3}, class_="compact")
    return join([el("h3", "Largest confusions", class_="later"), drawn])
