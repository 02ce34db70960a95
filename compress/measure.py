"""What a sealed artifact does: its answers, its size, and its speed in ONNX Runtime beside the teacher's."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from compress.bootstrap import summary_interval
from compress.goal_settings import MeasureSettings
from compress.machine import calls, environment, same_rows, timed_rows
from compress.record import Figure, Latency, Measurement
from compress.statistics import metric_interval
from export.bundle import Bundle
from export.contents import Contents, write_bundle
from export.graph_file import graph_file
from export.latency import Call, LatencyComparison
from export.latency import compare as compare_latency
from export.lower import lower
from export.manifest import MANIFEST_FILE
from export.outputs import outputs_of as bundle_outputs
from export.target import CPU
from models.checkpoint import Checkpoint, read_shape
from models.encoded import Encoded
from models.errors import BadInput
from models.evaluation import evaluate_logits, outputs_of
from models.files import bytes_below
from models.progress import Progress, silent
from models.shape import LayerShape, ModelShape
from models.summary import Summary, contributions
from models.targets import Writes
from models.task import Besides, PairedTest, Task
from models.writing import texts_written

GRAPH = "model.onnx"
BESIDE_RESAMPLES = 2_000  # of what decides nothing: a fifth of the time


@final
@dataclass(frozen=True)
class Probe:
    """A checkpoint or a bundle to be measured. `digest` names its content; its weights are read when they are used."""

    directory: Path
    shape: ModelShape
    digest: str

    @staticmethod
    def open(directory: Path, digest: str) -> Probe:
        """Return what is in `directory`.

        Raises:
            CompressError: as the description of a checkpoint or a bundle raises.
        """
        bundled = (directory / MANIFEST_FILE).exists()
        return Probe(directory, Bundle.open(directory).shape if bundled else read_shape(directory), digest)

    @cached_property
    def product(self) -> Checkpoint | Bundle:
        """Return the checkpoint or the bundle.

        Raises:
            CompressError: as a checkpoint or a bundle raises.
        """
        bundled = (self.directory / MANIFEST_FILE).exists()
        return Bundle.open(self.directory) if bundled else Checkpoint.load(self.directory)

    @property
    def layers(self) -> tuple[LayerShape, ...]:
        """Return what each layer kept: behind those that read, those that write."""
        decoder = self.shape.decoder
        return self.shape.layers if decoder is None else (*self.shape.layers, *decoder.layers)

    def logits(self, data: Encoded, progress: Progress = silent) -> npt.NDArray[np.float32]:
        """Return the logits (rows, labels): of the runtime one text at a time for a bundle, else of PyTorch."""
        if isinstance(self.product, Bundle):
            return self.product.logits(data, progress=progress)
        return evaluate_logits(self.product.network(), data, progress=progress)

    def outputs(self, data: Encoded, task: Task, progress: Progress = silent) -> npt.NDArray[Any]:
        """Return what the task is judged by, as `models.evaluation.outputs_of` has it: of the runtime one row at a time
        for a bundle, else of PyTorch.
        """
        if isinstance(self.product, Bundle):
            return bundle_outputs(self.product, data, task.writes, progress=progress)
        product = self.product
        return outputs_of(product.network(), data, task.writes, generation=product.generation, progress=progress)

    def graph(self, scratch: Path) -> tuple[Path, int]:
        """Return an ONNX file that computes this artifact, and the bytes that a device would get; of what writes the
        directory of a bundle.
        """
        writes = self.shape.output is not None
        if isinstance(self.product, Bundle):
            return self.directory if writes else self.product.model, self.product.bytes
        if writes and scratch.exists():  # of a call that was killed
            shutil.rmtree(scratch)
        scratch.mkdir(parents=True, exist_ok=True)
        if writes:
            bundle = write_bundle(scratch, Contents.of(self.product, graph_file(self.product.network(), CPU), []))
            return scratch, bundle.bytes
        path = scratch / GRAPH
        path.write_bytes(lower(self.product.network(), CPU).SerializeToString())
        self.product.reader.save(scratch)
        return path, bytes_below(scratch)


@final
@dataclass(frozen=True, slots=True)
class Subject:
    """A model and the examples as its own tokenizer reads them."""

    probe: Probe
    data: Encoded

    def calls(self, rows: npt.NDArray[np.int64]) -> list[Call]:
        """Return the calls of these rows, each alone, as the model takes them."""
        product = self.probe.product
        return calls(self.data, rows, texts=isinstance(product, Bundle) and product.takes_texts)


def measure(
    subject: Subject,
    task: Task,
    *,
    name: str,
    reference: Subject | None,
    settings: MeasureSettings,
    scratch: Path,
    progress: Progress = silent,
) -> Measurement:
    """Return a model's scores and, beside a `reference`, its latency on the same texts in interleaved rounds.

    `name` says which examples they are, whatever tokenizer reads them. The texts that are timed are spread evenly over
    the sorted lengths of the reference's data. A reference that is the model itself is a control: its speed-up must
    be 1.
    """
    probe, data = subject.probe, subject.data
    outputs = _finite_outputs(subject, task, progress)
    metric, targets = task.metric, np.asarray(data.targets)
    statistics = task.statistics(outputs, data, probe.shape.labels)
    scores = contributions(metric.summary, statistics)
    if metric.summary is Summary.MEAN:
        interval = metric_interval(scores, paired_test=metric.paired_test.value)
    else:
        interval = summary_interval(metric.summary, statistics)
    graph, size = probe.graph(scratch / "candidate")
    comparison = None
    if reference is not None:
        baseline, _ = reference.probe.graph(scratch / "baseline")
        timed = timed_rows(reference.data, settings.texts)
        comparison = compare_latency(
            baseline,
            graph,
            subject.calls(same_rows(data, reference.data, timed)),
            baseline_calls=reference.calls(timed),
            threads=settings.threads,
            rounds=settings.rounds,
            progress=progress,
        )
    return Measurement(
        artifact=probe.digest,
        data=name,
        metric=metric.name,
        higher_is_better=metric.higher_is_better,
        paired_test=metric.paired_test.value,
        summary=metric.summary,
        scores=scores.tolist(),
        statistics=[] if metric.summary is Summary.MEAN else statistics.tolist(),
        predictions=task.predict(outputs, data).tolist() if metric.classes else [],
        targets=targets.tolist() if metric.classes else [],
        estimate=float(scores.mean()),
        low=interval.low,
        high=interval.high,
        besides=[_beside(one, statistics) for one in metric.besides],
        bytes=size,
        parameters=probe.product.parameters,
        latency=None if comparison is None else _latency(comparison, candidate=True),
        baseline_latency=None if comparison is None else _latency(comparison, candidate=False),
        environment=environment(settings.threads),
        truncated=data.truncated,
    )


def measure_agreement(
    subject: Subject, before: Subject, task: Task, *, name: str, like: Measurement, progress: Progress = silent
) -> Measurement:
    """Return on how many texts a model answers as the one `before` it: scored 1 where the predictions are equal, or
    where the same text is written.

    `like` is a measurement of the same model, whose size and machine are repeated. `name` as in `measure`.

    Raises:
        BadInput: the answers are neither classes nor written behind a source.
    """
    if not task.metric.classes and task.writes is not Writes.BEHIND_SOURCE:
        raise BadInput(
            f"the answers of {task.name} are not the same or another, so their agreement cannot be judged",
            where="data.foreign",
            fix="Leave it out.",
        )
    answers, expected = (_answers(one, task, progress) for one in (subject, before))
    scores = np.array([ours == theirs for ours, theirs in zip(answers, expected, strict=True)], dtype=np.float64)
    interval = metric_interval(scores, paired_test="proportions")
    return like.model_copy(
        update={
            "data": name,
            "metric": "agreement",
            "higher_is_better": True,
            "paired_test": "proportions",
            "summary": Summary.MEAN,
            "statistics": [],
            "scores": scores.tolist(),
            "besides": [],
            "predictions": answers if task.metric.classes else [],
            "targets": expected if task.metric.classes else [],
            "estimate": interval.estimate,
            "low": interval.low,
            "high": interval.high,
            "latency": None,
            "baseline_latency": None,
            "truncated": subject.data.truncated,
        }
    )


def _answers(subject: Subject, task: Task, progress: Progress) -> list[Any]:
    """Return the class of every row, or what is written for it."""
    outputs = _finite_outputs(subject, task, progress)
    if task.writes is Writes.BEHIND_SOURCE:
        return texts_written(outputs, subject.data)
    answers: list[Any] = task.predict(outputs, subject.data).tolist()
    return answers


def _beside(besides: Besides, statistics: npt.NDArray[np.float64]) -> Figure:
    own = statistics[:, besides.first :]
    if besides.summary is Summary.MEAN:
        interval = metric_interval(own[:, 0], paired_test=PairedTest.BOOTSTRAP.value)
    else:
        interval = summary_interval(besides.summary, own, resamples=BESIDE_RESAMPLES)
    return Figure(name=besides.name, estimate=interval.estimate, low=interval.low, high=interval.high)


def _finite_outputs(subject: Subject, task: Task, progress: Progress) -> npt.NDArray[Any]:
    logits = subject.probe.outputs(subject.data, task, progress)
    if not np.isfinite(logits).all():
        rows = int((~np.isfinite(logits)).any(axis=1).sum())
        raise BadInput(
            f"the model gives no finite answer for {rows} of {len(logits)} examples",
            where=str(subject.probe.directory),
            fix="Its training diverged, or its weights overflow: try a lower learning rate.",
        )
    return logits


def _latency(comparison: LatencyComparison, *, candidate: bool) -> Latency:
    side = comparison.candidate if candidate else comparison.baseline
    return Latency(
        lengths=list(comparison.lengths if candidate else comparison.baseline_lengths),
        rounds=[list(passes) for passes in side.rounds],
        p50_ms=side.p50_ms,
        p95_ms=side.p95_ms,
        threads=comparison.threads,
    )
