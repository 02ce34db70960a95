"""The later parts of the page: training, sensitivity, data, artifacts, environment, recipe."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import yaml

from compress.report import wording
from compress.report.charts import draw_curve, training_curves
from compress.report.data import Report, StageReport
from compress.report.markup import Markup, el, join
from compress.report.tables import Cell, section, table

SENSITIVE = 24  # rows of the sensitivity table
ROUND_FIGURES = {
    "Weights removed": "predicted_sparsity",
    "Predicted speed-up": "predicted_speedup",
    "Measured speed-up": "measured_speedup",
    "Importance lost": "lost_importance",
}
SUPERSCRIPT = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


def appendix(report: Report) -> Markup:
    """Return the parts of the page that few read and some need."""
    parts = (
        _training,
        _narrowing,
        _pruning,
        _trimming,
        _blocks,
        _sensitivity,
        _data,
        _artifacts,
        _environment,
        _recipe,
    )
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


def _narrowing(report: Report) -> Markup | None:
    """Return what a narrower residual stream gains in the runtime."""
    rows = []
    for stage in report.stages:
        told = stage.details.get("hidden_size")
        width, gain = _pair(told), told.get("measured_speedup") if isinstance(told, Mapping) else None
        if width is not None:
            rows.append([stage.stage, width, wording.ratio(gain) if _number(gain) else wording.NONE])
    if not rows:
        return None
    said = "Channels of the residual stream, and how many times faster the student is for that alone, in int8."
    heads = ["Stage", "Width", "Measured speed-up"]
    return section("Width", said, table(heads, rows, label="Width", numbers={1, 2}, class_="compact"))


def _pruning(report: Report) -> Markup | None:
    """Return what every round of a gradual pruning predicted, lost and, in the last one, measured."""
    tables = []
    for stage in report.stages:
        rounds = _objects(stage.details.get("rounds"))
        figures = {name: key for name, key in ROUND_FIGURES.items() if any(_number(one.get(key)) for one in rounds)}
        if rounds:
            tables.append(
                table(
                    ["Round", "Heads left", "FFN neurons left", *figures],
                    [[str(k), *_round(one, figures)] for k, one in enumerate(rounds, 1)],
                    label=f"Pruning rounds, {stage.stage}",
                    class_="compact",
                    numbers=set(range(1, 3 + len(figures))),
                )
            )
    if not tables:
        return None
    said = "All layers' heads and neurons after each round; figures are against the model that the stage began with."
    return section("Pruning", said, *tables)


def _round(told: Mapping[str, Any], figures: Mapping[str, str]) -> Iterator[str]:
    for ending in ("heads", "ffn"):  # of layers that write behind an encoder they are told apart
        every = [kept for key, kept in told.items() if key.endswith(ending) and isinstance(kept, list)]
        counts = [one for kept in every for one in kept if isinstance(one, int)]
        yield wording.grouped(sum(counts)) if counts else wording.NONE
    for key in figures.values():
        value = told.get(key)
        if not _number(value):
            yield wording.NONE
        elif key == "predicted_sparsity":
            yield f"{100 * value:.1f} %"
        else:
            yield f"{value:.3g}" if key == "lost_importance" else wording.ratio(value)


def _trimming(report: Report) -> Markup | None:
    """Return what trimming left of the vocabulary and the positions, and what that changed."""
    rows = [[stage.stage, *_trimmed(stage.details)] for stage in report.stages if _pair(stage.details.get("pieces"))]
    if not rows:
        return None
    heads = ["Stage", "Pieces", "Training tokens kept", "Positions", "Texts cut otherwise", "Tokens per text"]
    said = "What is left of the vocabulary and the positions; texts are those of the validation data."
    drawn = table(heads, rows, label="Trimming", numbers=set(range(1, len(heads))), class_="compact")
    return section("Trimming", said, drawn)


def _trimmed(told: Mapping[str, Any]) -> Iterator[str]:
    texts = told.get("validation")
    texts = texts if isinstance(texts, Mapping) else {}
    covered, changed, count = told.get("covered"), texts.get("changed"), texts.get("texts")
    yield _pair(told.get("pieces")) or wording.NONE
    yield f"{100 * covered:.2f} %" if _number(covered) else wording.NONE
    yield _pair(told.get("positions")) or wording.NONE
    yield f"{changed:.0f} of {count:.0f}" if _number(changed) and _number(count) else wording.NONE
    yield _pair(texts.get("tokens_per_text")) or wording.NONE


def _pair(value: Any) -> str | None:
    """Return `before` and `after` of an object in a stage's details, or None where they are not there."""
    ends = [value.get(key) for key in ("before", "after")] if isinstance(value, Mapping) else []
    shown = [wording.grouped(one) if isinstance(one, int) else f"{one:.1f}" for one in ends if _number(one)]
    return " \N{RIGHTWARDS ARROW} ".join(shown) if len(shown) == 2 else None


def _objects(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a list in a stage's details: they belong to the stages, and may be anything."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _blocks(report: Report) -> Markup | None:
    """Return what a word takes with weights in blocks, and what was chosen for that."""
    rows = []
    for stage in report.stages:
        told = stage.details.get("blocks")
        times = told.get("word_ms") if isinstance(told, Mapping) else None
        if isinstance(told, Mapping) and isinstance(times, Mapping):
            shown = [times.get(choice) for choice in ("all", "words", "int8")]
            ms = [f"{one:.3f}" if _number(one) else wording.NONE for one in shown]
            rows.append(
                [stage.stage, *(str(told.get(name)) for name in ("bits", "inputs")), *ms, str(told.get("chosen"))]
            )
    if not rows:
        return None
    said = (
        "Milliseconds of a word that is written, with all that runs for every word in blocks, with what makes logits "
        "alone, and in int8 without blocks: the least is chosen."
    )
    heads = ["Stage", "Bits", "Inputs of a block", "all", "words", "int8", "Chosen"]
    drawn = table(heads, rows, label="Blocks", numbers={1, 2, 3, 4, 5}, class_="compact")
    return section("Weights in blocks", said, drawn)


def _sensitivity(report: Report) -> Markup | None:
    shown = [one for one in map(_sensitivity_of, report.stages) if one is not None]
    if not shown:
        return None
    said = (
        "What each module alone costs in int8, the dearest first: those to leave in float. KL is the mean divergence "
        "of the answers from the float model's, MSE the mean squared change of the logits."
    )
    return section("Sensitivity to int8", said, *shown)


def _sensitivity_of(stage: StageReport) -> Markup | None:
    rows = [one for one in _objects(stage.details.get("sensitivity")) if _number(one.get("kl"))]
    if not rows:
        return None
    rows = sorted(rows, key=lambda one: -one["kl"])
    shown = rows[:SENSITIVE]
    most = max(0.0, shown[0]["kl"])
    shares = [max(0.0, one["kl"]) / most if most else 0.0 for one in shown]
    kl, in_kl = _scaled([one["kl"] for one in shown])
    mse, in_mse = _scaled([one.get("mse") for one in shown])
    changes = [one.get("score_change") for one in shown]
    columns: dict[str, list[Cell]] = {
        "Module": [str(one.get("name", k)) for k, one in enumerate(rows[:SENSITIVE], 1)],
        f"KL, {in_kl}nats": [*kl],
        "KL, drawn": [el("span", class_="bar", style=f"width:{100 * share:.1f}%") for share in shares],
        f"MSE, {in_mse}".rstrip(", "): [*mse],
    }
    if any(_number(change) for change in changes):
        columns["Score change"] = [
            wording.signed(change, 4, plus="+") if _number(change) else wording.NONE for change in changes
        ]
    left = len(rows) - len(shown)
    more = el("p", f"{left} less sensitive modules are in report.json.", class_="note") if left else None
    label, body = f"Sensitivity, {stage.stage}", list(zip(*columns.values(), strict=True))
    return join([table([*columns], body, label=label, numbers={1, 3, 4}, cells=("", "", "drawn")), more])


def _scaled(values: Sequence[Any]) -> tuple[list[str], str]:
    """Return a column of figures with three decimals, and the power of ten they are told in where they are small."""
    most = max((abs(value) for value in values if _number(value)), default=0.0)
    power = math.floor(math.log10(most)) if 0 < most < 0.01 else 0
    unit = "" if power == 0 else f"10{str(power).translate(SUPERSCRIPT)} "
    return [wording.signed(value / 10.0**power, 3) if _number(value) else wording.NONE for value in values], unit


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _data(report: Report) -> Markup | None:
    if not report.data:
        return None
    rows: list[list[Cell]] = [
        [one.role, one.source, wording.grouped(one.examples), wording.grouped(one.truncated), one.digest[:12]]
        for one in report.data
    ]
    heads = ["Data", "Source", "Examples", "Cut to length", "Digest"]
    elsewhere = " and on foreign texts" if any(one.role == "foreign" for one in report.data) else ""
    said = f"Gates judge on validation{elsewhere}; test is only reported on."
    cells = ("", "text", "", "", "digest")
    return section("Data", said, table(heads, rows, label="Data", numbers={2, 3}, cells=cells))


def _artifacts(report: Report) -> Markup:
    rows: list[list[Cell]] = [
        [
            stage.stage,
            stage.directory,
            wording.duration(stage.seconds) + (f", attempt {stage.attempt + 1}" if stage.attempt else ""),
            str(stage.int8),
            wording.moment(stage.created),
            stage.digest[:12],
        ]
        for stage in report.stages
    ]
    heads = ["Artifact", "Directory", "Computed in", "int8 modules", "Sealed", "Digest"]
    cells = ("", "", "", "", "moment", "digest")
    said = f"Computed in {wording.duration(sum(stage.seconds for stage in report.stages))} in all."
    return section("Artifacts", said, table(heads, rows, label="Artifacts", numbers={2, 3}, cells=cells))


def _environment(report: Report) -> Markup:
    machine = report.environment
    facts = {
        "Processor": machine.cpu,
        "Instruction sets": ", ".join(machine.flags) or wording.NONE,
        "Cores": f"{machine.cores}, of which the timed runtime was given {machine.threads}",
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
    return f"{last.rounds} rounds of {last.texts} rows of the data's real lengths, batch 1, in turns with the teacher"


def _facts(facts: Mapping[str, str]) -> Iterator[Markup]:
    for name, value in facts.items():
        yield el("dt", name)
        yield el("dd", value)


def _recipe(report: Report) -> Markup:
    text = yaml.safe_dump(report.recipe, sort_keys=False, allow_unicode=True, width=70)
    return section("Recipe", "Every setting, those left at their defaults too.", el("pre", text, tabindex=0))
