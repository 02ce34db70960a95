"""What a run tells on the page of its bundle: the teacher and its licence, data, stages, gates and limits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from compress.record import DataRecord, Measurement, RunResult, StageResult, Verdict
from compress.report import wording
from compress.report.data import Report, StageReport, make_report
from compress.stages import STAGES, TRAIN
from export.card import Card
from export.readme import readme
from models.data import looks_like_path
from models.provenance import Provenance, hub_name
from models.shape import ModelShape

# What metrics are called on the hub.
METRICS: Final = {
    "macro_f1": "f1",
    "span_f1": "f1",
    "answer_f1": "f1",
    "map": "mean_average_precision",
    "spearman": "spearmanr",
    "rouge_l": "rouge",
    "token_loss": "loss",
}
ROLES: Final = {
    "train": "learned from",
    "extra": "learned from besides, without labels",
    "validation": "judged on by the gates",
    "test": "reported on",
    "foreign": "texts from elsewhere, compared with the stage before",
}
DEFAULTS: Final = {stage.name: stage.settings for stage in STAGES}


def model_card(result: RunResult, source: Provenance, card: Card) -> str:
    """Return the page of the bundle that a run hands over; no path of this machine is on it."""
    report = make_report(result)
    told = (
        _summary(result, report),
        _origin(result, source),
        _making(result, report),
        _gates(result, report),
        _limits(report, card.shape),
    )
    return readme(card, metadata=_metadata(result, source, card), told=told)


def told_stages(result: RunResult) -> list[StageResult]:
    """Return the stages that led to the bundle, the teacher first: of a search the teacher and the chosen point."""
    if result.chosen is None:
        return list(result.stages)
    return [stage for stage in result.stages if stage in (result.stages[0], result.last)]


def _metadata(result: RunResult, source: Provenance, card: Card) -> dict[str, Any]:
    on = result.last.test or result.last.validation
    role = "test" if result.last.test is not None else "validation"
    kind = METRICS.get(on.metric, on.metric)
    data = next((record for record in result.data if record.role == role), None)
    datasets = sorted({name for record in result.data if (name := _on_hub(record)) is not None})
    metadata = source.metadata | ({"datasets": datasets} if datasets else {}) | {"metrics": [kind]}
    if data is None:
        return metadata
    measured = {"type": kind, "value": round(on.estimate, 6), "name": f"{wording.title(on.metric)} ({_told(on)})"}
    where = {"type": _on_hub(data) or Path(data.source).stem, "name": _name(data), "split": role}
    found = {"task": {"type": card.pipeline}, "dataset": where, "metrics": [measured]}
    return metadata | {"model-index": [{"name": result.name, "results": [found]}]}


def _summary(result: RunResult, report: Report) -> str:
    names = ", ".join(_safe(stage.stage) for stage in told_stages(result)[1:])
    head, figures = report.headline, list[str]()
    if head.speedup is not None:
        figures.append(f"{wording.times(head.speedup.estimate)} times as fast")
    if head.size_ratio is not None:
        figures.append(f"{wording.times(head.size_ratio)} times smaller")
    gained = f": {' and '.join(figures)}" if figures else ""
    return f"Made from its teacher by {names}{gained}.\n"


def _origin(result: RunResult, source: Provenance) -> str:
    rows = "".join(
        f"| {_safe(_name(record))} | {ROLES[record.role]} | {record.examples:,} |\n" for record in result.data
    )
    return (
        "## Where it comes from\n\n"
        f"{_teacher(result, source)} {licence_told(source)}\n\n"
        f"| data | what for | examples |\n|---|---|---|\n{rows}"
    )


def _teacher(result: RunResult, source: Provenance) -> str:
    root, others = result.stages[0], len(result.recipe.get("ensemble") or ())
    trained = root.stage == TRAIN.name
    named = "a checkpoint that is not from the hub"
    if source.name:
        itself = source.name == result.recipe.get("teacher")
        named = f"{'' if itself else 'a checkpoint made from '}`{source.name}` of the Hugging Face hub"
    new = trained and source == Provenance()
    told = f"The teacher is {'a network' if new else named}{' trained by this run' if trained else ''}"
    told += f" (digest `{root.artifact.digest[:12]}`)."
    return told + (f" Students learnt from {others} more, of which nothing is said here." if others else "")


def licence_told(source: Provenance) -> str:
    """Return what there is to say of the licence."""
    if source.licence is None:
        return "No licence is stated on its page: ask whoever made it, or its data, before you pass this on."
    named = _safe(source.licence_name or source.licence)
    return f"Its page states the licence {named}, which goes on to what is made of it."


def _making(result: RunResult, report: Report) -> str:
    stages = {stage.stage: stage for stage in report.stages}
    told = told_stages(result)
    rows = "".join(f"| {' | '.join(_row(stages[stage.stage], report))} |\n" for stage in told)
    settings = "".join(
        f"- {_safe(name)}: {_settings(kind, given)}\n"
        for one in told
        for name, kind, given in (
            *((step.stage, step.stage, step.settings) for step in one.steps),
            (one.stage, one.artifact.stage, one.artifact.settings),
        )
        if kind in DEFAULTS
    )
    metric = f"{wording.title(report.metric.name)} on validation (95 % interval)"
    head = f"| stage | weights | MB | {metric} | median, ms |\n|---|---|---|---|---|\n"
    return f"## How it was compressed\n\n{head}{rows}\n{settings}"


def _row(stage: StageReport, report: Report) -> Iterator[str]:
    on, paired = stage.accuracy.validation, report.metric.paired_test
    yield _safe(stage.stage)
    yield wording.count(stage.parameters)
    yield wording.megabytes(stage.bytes)
    yield f"{wording.share(on.estimate, paired)}{wording.unit(paired)} ({wording.accuracy_interval(on, paired)})"
    yield wording.milliseconds(None if stage.latency is None else stage.latency.p50_ms)


def _settings(stage: str, given: dict[str, Any]) -> str:
    """Return the settings of a stage that are not the usual ones."""
    known = dict(_flat(DEFAULTS[stage].model_construct().model_dump(mode="json")))
    flat = {name: value for name, value in _flat(given) if known.get(name) != value}
    return ", ".join(f"`{name}: {_safe(value)}`" for name, value in flat.items()) or "the usual settings"


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _gates(result: RunResult, report: Report) -> str:
    last, head, paired = result.last, report.headline, report.metric.paired_test
    lines = [f"On {head.accuracy.n:,} {head.data} examples: {wording.title(report.metric.name)} {_told(_on(result))}."]
    if head.difference is not None:
        interval = wording.points_interval(head.difference, paired)
        unit = " points" if paired == "proportions" else ""
        estimate = wording.points(head.difference.estimate, paired)
        lines.append(f"Against the teacher on the same examples: {estimate}{unit} (95 % interval {interval}).")
    if head.speedup is not None:
        speedup = f"{wording.ratio(head.speedup.estimate)} (95 % interval {wording.ratio_interval(head.speedup)})"
        where = last.validation.environment
        threads = f"{where.threads} thread{'s' if where.threads > 1 else ''}"
        lines.append(f"Speed-up over the teacher in ONNX Runtime: {speedup}, on {_safe(where.cpu)}, {threads}.")
    verdicts = [f"- {_verdict(one)}" for one in last.verdicts] or ["No gate was asked."]
    return "\n".join(["## What was measured", "", *lines, "", *verdicts, ""])


def _verdict(verdict: Verdict) -> str:
    return f"{verdict.gate} gate {'passed' if verdict.passed else 'NOT passed'}: {_safe(wording.said(verdict))}"


def _limits(report: Report, shape: ModelShape) -> str:
    lines = [
        "What the teacher gets wrong this may get wrong too, and its answers are trusted no further than the data that "
        "they were judged on.",
        "The best weights of a training are chosen on the validation data the gates judge on. One run is one seed.",
    ]
    if shape.image is None:
        lines.append(f"It reads {shape.usable_positions} tokens; what is longer is cut, or refused where it writes.")
    if report.last.int8:
        lines.append(
            f"{report.last.int8} modules compute in int8: another processor may round otherwise, within the tolerance "
            "in `golden.json`, which `compress verify` checks there."
        )
    lines.append("Times are of the machine above; `compress bench . --device-report` tells those of another.")
    return "## Limits\n\n" + "".join(f"- {line}\n" for line in lines)


def _on(result: RunResult) -> Measurement:
    """Return what the headline is told on."""
    last, teacher = result.last, result.stages[0]
    return last.validation if last.test is None or teacher.test is None else last.test


def _told(measured: Measurement) -> str:
    paired = measured.paired_test
    value = f"{wording.share(measured.estimate, paired)}{wording.unit(paired)}"
    low, high = (wording.share(end, paired) for end in (measured.low, measured.high))
    return f"{value}, 95 % interval {low}{wording.DASH}{high}"


def _on_hub(record: DataRecord) -> str | None:
    name = None if looks_like_path(record.source) else hub_name(record.source)
    return None if name is None else name.partition(":")[0]


def _name(record: DataRecord) -> str:
    """Return a data set's name on the hub, or that of its file: whose folder it lies in concerns nobody."""
    return Path(record.source).name if _on_hub(record) is None else record.source


def _safe(value: object) -> str:
    """Return text that stays text in a table of Markdown."""
    return "".join(c for c in str(value) if c.isprintable()).replace("|", "/").replace("`", "'").replace("<", "&lt;")
