"""The report of a run: every figure of the table, the drawings and the verdicts under stable, documented keys.

`report.json` is a `Report`; `docs/report.md` lists its keys. A key is never renamed or given another meaning without
raising `REPORT_FORMAT`. Shares are between 0 and 1, times in ms or s, sizes in bytes; intervals are two-sided at 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from compress.device_record import DeviceReport
from compress.gates import gain_interval
from compress.record import (
    DataRecord,
    Environment,
    Figure,
    GateName,
    LayerRecord,
    Measurement,
    Paired,
    Record,
    RunResult,
    StageResult,
    Verdict,
)
from compress.statistics import Interval, ratio_interval, wilson_interval
from models.errors import BadInput

REPORT_FORMAT = 1

Role = Literal["validation", "test"]


class Accuracy(Record):
    """A metric with its interval."""

    n: int = Field(ge=0, description="examples it was measured on")
    estimate: float = Field(description="the metric; a share of right answers for accuracy")
    low: float = Field(description="lower end of the 95 % interval")
    high: float = Field(description="upper end of the 95 % interval")


class Span(Record):
    """A figure with its two-sided 95 % interval."""

    estimate: float = Field(description="the figure")
    low: float = Field(description="lower end of the 95 % interval")
    high: float | None = Field(description="upper end; null where the data set none, as a single round does")


class AccuracyByData(Record):
    """A metric on each set of examples."""

    validation: Accuracy = Field(description="on the data that the gates judge on")
    test: Accuracy | None = Field(description="on the data that only the report is made on; null without any")


class FiguresByData(Record):
    """What is told beside the metric on each set of examples."""

    validation: list[Figure] = Field(description="on the data that the gates judge on")
    test: list[Figure] | None = Field(description="on the data that only the report is made on; null without any")


class SpanByData(Record):
    """A comparison with the teacher on each set of examples; null for the teacher itself."""

    validation: Span | None = Field(description="on the data that the gates judge on")
    test: Span | None = Field(description="on the data that only the report is made on; null without any")


class LatencyFigures(Record):
    """Time of one call at batch 1 in ONNX Runtime, and the teacher's in the same interleaved rounds."""

    p50_ms: float = Field(description="median of all calls, ms")
    p95_ms: float = Field(description="95th percentile of all calls, ms")
    teacher_p50_ms: float | None = Field(description="the teacher's median in the same rounds, ms")
    teacher_p95_ms: float | None = Field(description="the teacher's 95th percentile in the same rounds, ms")
    threads: int = Field(description="threads the runtime was given")
    rounds: int = Field(description="interleaved rounds")
    texts: int = Field(description="texts in a pass, of the data's real lengths")


class StageReport(Record):
    """What one stage made of the model."""

    stage: str = Field(description="name of the stage; the first is the teacher, `teacher` or `train`")
    directory: str = Field(description="its directory, relative to the run")
    digest: str = Field(description="digest of its artifact")
    created: str = Field(description="time of the seal, ISO 8601, UTC")
    attempt: int = Field(description="0, or how often the stage was made milder after a failed gate")
    seconds: float = Field(description="time the stage took when it was computed")
    parameters: int = Field(description="numbers in the weights")
    bytes: int = Field(description="size on disk of what is shipped")
    passed: bool | None = Field(description="whether every gate of the stage was passed; null where none judged it")
    size_ratio: float | None = Field(description="the teacher's bytes over these; null where nothing is shipped")
    accuracy: AccuracyByData = Field(description="the metric named by `metric.name`")
    besides: FiguresByData = Field(description="figures told beside the metric, which no gate judges")
    difference: SpanByData = Field(
        description="candidate minus teacher on the same examples, positive is better: Tango's interval for 0/1 "
        "scores, the paired bootstrap for others"
    )
    agreement: SpanByData = Field(description="share of examples with the teacher's prediction, Wilson's interval")
    foreign: Accuracy | None = Field(
        description="share of texts from elsewhere with the answer of the stage's input, Wilson's interval; null where "
        "not asked"
    )
    latency: LatencyFigures | None = Field(description="null where it was not timed")
    speedup: Span | None = Field(
        description="the teacher's time over this one's, of the same rounds; the teacher's own is a control"
    )
    layers: list[LayerRecord] = Field(description="what each layer kept; behind those that read, those that write")
    int8: int = Field(description="modules in int8")
    verdicts: list[Verdict] = Field(description="what the gates decided")
    details: dict[str, Any] = Field(description="what the stage has to tell: losses, kept heads, sensitivities")


class FailedGate(Record):
    """A gate that was not passed."""

    stage: str = Field(description="stage whose result was judged")
    gate: GateName = Field(description="which gate")


class Headline(Record):
    """The last stage against the teacher."""

    stage: str = Field(description="name of the last stage")
    data: Role = Field(description="examples that accuracy, difference and agreement are told on")
    accuracy: Accuracy = Field(description="the last stage's metric")
    difference: Span | None = Field(description="as in `stages[].difference`")
    agreement: Span | None = Field(description="as in `stages[].agreement`")
    speedup: Span | None = Field(description="as in `stages[].speedup`")
    size_ratio: float | None = Field(description="as in `stages[].size_ratio`")
    failed: list[FailedGate] = Field(description="gates not passed, in order")


class Metric(Record):
    """What the models are scored by."""

    name: str = Field(description="name of the metric, such as accuracy")
    higher_is_better: bool = Field(description="whether a larger value is a better one")
    paired_test: Paired = Field(description="how two models are compared on the same examples")


class Confusion(Record):
    """Expected against predicted classes, of the teacher and of the last stage."""

    data: Role = Field(description="examples they were counted on")
    stage: str = Field(description="name of the last stage")
    teacher: list[list[int]] = Field(description="counts: a row per expected class, a column per predicted class")
    candidate: list[list[int]] = Field(description="the same of the last stage")


class Report(Record):
    """`report.json`: a whole run for people and machines."""

    format: int = Field(default=REPORT_FORMAT, description="version of these keys")
    name: str = Field(description="name of the run")
    passed: bool = Field(description="whether every gate was passed; of a search, whether a point was chosen")
    headline: Headline = Field(description="the last stage against the teacher")
    metric: Metric = Field(description="what the models are scored by")
    labels: list[str] = Field(description="class names, in the order of the confusion matrices")
    stages: list[StageReport] = Field(description="the teacher first, then every stage in order")
    confusion: Confusion | None = Field(description="null where there are no classes")
    data: list[DataRecord] = Field(description="the tables of examples")
    environment: Environment = Field(description="where the last stage was measured")
    recipe: dict[str, Any] = Field(description="every setting")
    computed: list[str] = Field(description="stages computed by the call that made this; the others were finished")
    chosen: str | None = Field(description="name of the point that a search chose; null for a run")
    notes: list[str] = Field(description="why a search ended where it did; empty for a run")
    devices: list[DeviceReport] = Field(
        description="what devices told of the bundle, as `compress bench` wrote it there"
    )

    @property
    def last(self) -> StageReport:
        """Return what is told in the headline: the last stage of a run, the chosen point of a search."""
        return next(stage for stage in self.stages if stage.stage == self.headline.stage)

    @property
    def is_search(self) -> bool:
        """Return whether the stages are the points of a search."""
        return bool(self.notes)


def make_report(run: RunResult, *, devices: Sequence[DeviceReport] = ()) -> Report:
    """Return the report of a run, with what devices told of its bundle.

    Raises:
        BadInput: the run has no stage, or a stage was measured on other examples than the teacher.
    """
    if not run.stages:
        raise BadInput("the run has no stage to report", where=run.name)
    teacher, last = run.stages[0], run.last
    stages = [_stage(one, teacher) for one in run.stages]
    final = stages[run.stages.index(last)]
    role: Role = "validation" if teacher.test is None or last.test is None else "test"
    on_role = last.validation if last.test is None or role == "validation" else last.test
    return Report(
        name=run.name,
        passed=run.passed,
        headline=Headline(
            stage=last.stage,
            data=role,
            accuracy=_accuracy(on_role),
            difference=getattr(final.difference, role),
            agreement=getattr(final.agreement, role),
            speedup=final.speedup,
            size_ratio=final.size_ratio,
            failed=[
                FailedGate(stage=verdict.stage, gate=verdict.gate)
                for stage in (run.stages if run.chosen is None else [last])
                for verdict in stage.verdicts
                if not verdict.passed
            ],
        ),
        metric=Metric(
            name=last.validation.metric,
            higher_is_better=last.validation.higher_is_better,
            paired_test=last.validation.paired_test,
        ),
        labels=list(run.labels),
        stages=stages,
        confusion=_confusion(teacher, last, role, classes=len(run.labels)),
        data=list(run.data),
        environment=last.validation.environment,
        recipe=run.recipe,
        computed=list(run.computed),
        chosen=run.chosen,
        notes=list(run.notes),
        devices=list(devices),
    )


def _stage(result: StageResult, teacher: StageResult) -> StageReport:
    measured, first = result.validation, result is teacher
    test = None if result.test is None or teacher.test is None else (teacher.test, result.test)
    return StageReport(
        stage=result.stage,
        directory=result.directory,
        digest=result.artifact.digest,
        created=result.artifact.created,
        attempt=result.attempt,
        seconds=result.seconds,
        parameters=measured.parameters,
        bytes=measured.bytes,
        passed=all(verdict.passed for verdict in result.verdicts) if result.verdicts else None,
        size_ratio=teacher.validation.bytes / measured.bytes if measured.bytes else None,
        accuracy=AccuracyByData(
            validation=_accuracy(measured), test=None if result.test is None else _accuracy(result.test)
        ),
        besides=FiguresByData(
            validation=list(measured.besides), test=None if result.test is None else list(result.test.besides)
        ),
        difference=SpanByData(
            validation=None if first else _difference(teacher.validation, measured),
            test=None if first or test is None else _difference(*test),
        ),
        agreement=SpanByData(
            validation=None if first else _agreement(teacher.validation, measured),
            test=None if first or test is None else _agreement(*test),
        ),
        foreign=None if result.foreign is None else _accuracy(result.foreign),
        latency=_latency(measured),
        speedup=_speedup(measured),
        layers=list(result.layers),
        int8=result.int8,
        verdicts=list(result.verdicts),
        details=result.artifact.details,
    )


def _accuracy(measured: Measurement) -> Accuracy:
    return Accuracy(
        n=len(measured.scores),
        estimate=measured.estimate,
        low=measured.low,
        high=measured.high,
    )


def _difference(teacher: Measurement, candidate: Measurement) -> Span:
    """Return candidate minus teacher on the same examples, turned so that positive is better."""
    if (teacher.data, len(teacher.scores)) != (candidate.data, len(candidate.scores)):
        raise BadInput("the teacher and a stage were measured on different examples", fix="Measure both again.")
    return _span(gain_interval(teacher, candidate, sides=2))


def _agreement(teacher: Measurement, candidate: Measurement) -> Span | None:
    if not teacher.predictions or len(teacher.predictions) != len(candidate.predictions):
        return None
    same = int(np.equal(teacher.predictions, candidate.predictions).sum())
    return _span(wilson_interval(same, len(teacher.predictions)))


def _latency(measured: Measurement) -> LatencyFigures | None:
    own, baseline = measured.latency, measured.baseline_latency
    if own is None:
        return None
    return LatencyFigures(
        p50_ms=own.p50_ms,
        p95_ms=own.p95_ms,
        teacher_p50_ms=None if baseline is None else baseline.p50_ms,
        teacher_p95_ms=None if baseline is None else baseline.p95_ms,
        threads=own.threads,
        rounds=len(own.rounds),
        texts=len(own.lengths),
    )


def _speedup(measured: Measurement) -> Span | None:
    if measured.latency is None or measured.baseline_latency is None:
        return None
    return _span(ratio_interval(measured.baseline_latency.rounds, measured.latency.rounds, sides=2))


def _span(interval: Interval) -> Span:
    high = interval.high if math.isfinite(interval.high) else None
    return Span(estimate=interval.estimate, low=interval.low, high=high)


def _confusion(teacher: StageResult, last: StageResult, role: Role, *, classes: int) -> Confusion | None:
    pair = [one.validation if role == "validation" else one.test for one in (teacher, last)]
    measured = [one for one in pair if one is not None and one.predictions and one.targets]
    if len(measured) != 2:
        return None
    size = max(classes, *(max(max(one.predictions), max(one.targets)) + 1 for one in measured))
    first, second = (_counts(one, size) for one in measured)
    return Confusion(data=role, stage=last.stage, teacher=first, candidate=second)


def _counts(measured: Measurement, size: int) -> list[list[int]]:
    """Return (size, size) counts, expected by predicted; examples without a label are left out."""
    expected, predicted = np.asarray(measured.targets), np.asarray(measured.predictions)
    known = (expected >= 0) & (predicted >= 0)
    flat = np.bincount(expected[known] * size + predicted[known], minlength=size * size)
    return [[int(count) for count in row] for row in flat.reshape(size, size)]
