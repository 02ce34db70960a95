"""The later parts of the page: training, sensitivity, data, artifacts, environment, recipe."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from compress.report import wording
from compress.report.charts import draw_curve, training_curves
from compress.report.data import Report, StageReport
from compress.report.markup import Markup, el, join
from compress.report.tables import Cell, section, table

SENSITIVE = 24  # rows of the sensitivity table
COST = ("cost", "loss", "accuracy_loss", "drop", "kl", "mse", "error")  # keys that may say what a layer costs


def appendix(report: Report) -> Markup:
    """Return the parts of the page that few read and some need."""
    parts = (_training, _sensitivity, _data, _artifacts, _environment, _recipe)
    return join([part(report) for part in parts])


def _training(report: Report) -> Markup | None:
    panels = []
    for stage in report.stages:
        curves = training_curves(stage.details)
        for name, points in curves.items():
            caption = el("figcaption", stage.stage)
            if len(points) > 1:
                panels.append(el("figure", caption, draw_curve(name, points, stage=stage.stage), class_="curve"))
    if not panels:
        return None
    said = "Mean of every loss between two evaluations, and the score on validation that the best weights are kept by."
    return section("Training", said, el("div", panels, class_="panels"))


def _sensitivity(report: Report) -> Markup | None:
    tables = [_sensitivity_of(stage) for stage in report.stages]
    shown = [one for one in tables if one is not None]
    if not shown:
        return None
    said = (
        "What each module alone costs in int8, the most sensitive first. The dearest are the first to leave in float."
    )
    return section("Sensitivity to int8", said, *shown)


def _sensitivity_of(stage: StageReport) -> Markup | None:
    given = stage.details.get("sensitivity")
    rows = [row for row in given if isinstance(row, Mapping) and "name" in row] if isinstance(given, list) else []
    columns = [key for key in dict.fromkeys(key for row in rows for key in row) if key != "name"]
    columns = [key for key in columns if all(_plain(row.get(key)) for row in rows)]
    if not rows or not columns:
        return None
    cost = next((key for key in COST if key in columns), None)
    cost = cost or next((key for key in columns if all(_number(row.get(key)) for row in rows)), None)
    if cost is not None:
        rows = sorted(rows, key=lambda row: -_amount(row.get(cost)))
    most = max((_amount(row.get(cost)) for row in rows), default=0.0) if cost is not None else 0.0
    body: list[list[Cell]] = []
    for row in rows[:SENSITIVE]:
        cells: list[Cell] = [str(row["name"]), *(_written(row.get(key)) for key in columns)]
        if most > 0:
            share = max(0.0, _amount(row.get(cost))) / most
            cells.append(el("span", class_="bar", style=f"width:{100 * share:.1f}%"))
        body.append(cells)
    heads = ["Module", *(key.replace("_", " ") for key in columns)] + ([f"{cost}, drawn"] if most > 0 else [])
    left = len(rows) - len(body)
    more = el("p", f"{left} less sensitive modules are in report.json.", class_="note") if left > 0 else None
    numbers = {k for k, key in enumerate(columns, 1) if all(_number(row.get(key)) for row in rows)}
    classes = [*("" for _ in range(len(columns) + 1)), "drawn"]
    return join([table(heads, body, label=f"Sensitivity, {stage.stage}", numbers=numbers, cells=classes), more])


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _amount(value: Any) -> float:
    return float(value) if _number(value) else 0.0


def _written(value: Any) -> str:
    if value is None:
        return wording.NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", wording.MINUS)
    return str(value)


def _data(report: Report) -> Markup | None:
    if not report.data:
        return None
    rows: list[list[Cell]] = [
        [one.role, one.source, f"{one.examples}", f"{one.truncated}", one.digest[:12]] for one in report.data
    ]
    heads = ["Data", "Source", "Examples", "Cut to length", "Digest"]
    said = "Gates judge on validation; test is only reported on."
    cells = ("", "text", "", "", "digest")
    return section("Data", said, table(heads, rows, label="Data", numbers={2, 3}, cells=cells))


def _artifacts(report: Report) -> Markup:
    rows: list[list[Cell]] = [
        [
            stage.stage,
            stage.directory,
            wording.duration(stage.seconds) + (f", attempt {stage.attempt + 1}" if stage.attempt else ""),
            str(stage.int8),
            stage.created,
            stage.digest[:12],
        ]
        for stage in report.stages
    ]
    heads = ["Artifact", "Directory", "Computed in", "int8 modules", "Sealed", "Digest"]
    cells = ("", "text", "", "", "", "digest")
    return section("Artifacts", "", table(heads, rows, label="Artifacts", numbers={2, 3}, cells=cells))


def _environment(report: Report) -> Markup:
    machine = report.environment
    facts = {
        "Processor": machine.cpu,
        "Instruction sets": ", ".join(machine.flags) or wording.NONE,
        "Cores": f"{machine.cores}; {machine.threads} given to the runtime",
        "System": machine.os,
        "Python": machine.python,
        "PyTorch": machine.torch,
        "ONNX Runtime": machine.onnxruntime,
        "Timing": _timing(report.stages),
    }
    return section("Environment", "", el("dl", _facts(facts), class_="facts"))


def _timing(stages: Sequence[StageReport]) -> str:
    timed = [stage.latency for stage in stages if stage.latency is not None]
    if not timed:
        return "latency was not measured"
    last = timed[-1]
    return f"{last.rounds} rounds of {last.texts} texts of the data's real lengths, batch 1, in turns with the teacher"


def _facts(facts: Mapping[str, str]) -> Iterator[Markup]:
    for name, value in facts.items():
        yield el("dt", name)
        yield el("dd", value)


def _recipe(report: Report) -> Markup:
    text = yaml.safe_dump(report.recipe, sort_keys=False, allow_unicode=True, width=70)
    return section("Recipe", "Every setting, those left at their defaults too.", el("pre", text, tabindex=0))
