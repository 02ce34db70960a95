"""What is told of a model outside a run: what it is, how right it is, how fast it is."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from compress.artifact import RECORD_FILE, open_artifact
from compress.gates import gain_interval
from compress.goal_settings import MeasureSettings
from compress.machine import environment, same_rows, timed_rows
from compress.measure import Probe, Subject, measure
from compress.record import Measurement
from compress.sources import embedded_table, tree_digest
from compress.statistics import mcnemar_p, ratio_interval
from export.bundle import Bundle
from export.latency import LatencyComparison, compare
from export.lengths import sizes_at
from export.providers import shares_of
from export.target import MOBILE
from models.columns import Wanted
from models.encoding import encode
from models.errors import BadInput
from models.files import bytes_below, inside
from models.hub import local_directory
from models.progress import Progress, silent
from models.shape import LayerShape
from models.targets import NextTargets, Writes
from models.task import Task
from models.tasks import task_named

TEXTS = 100


class Look(Protocol):
    """What a command that measures was told."""

    data: str | None
    teacher: str | None
    text: str | None
    text_pair: str | None
    label: str | None
    threads: int
    rounds: int
    cache: Path


def inspect_model(source: str) -> dict[str, Any]:
    """Return what a checkpoint, artifact or bundle is, as a JSON object."""
    directory = local_directory(source)
    record = open_artifact(directory) if (directory / RECORD_FILE).exists() else None
    probe = Probe.open(directory, tree_digest(directory))
    shape = probe.shape
    facts: dict[str, Any] = {
        "source": source,
        "kind": "bundle" if isinstance(probe.product, Bundle) else "checkpoint",
        "family": shape.family,
        "labels": list(shape.labels),
        "parameters": probe.product.parameters,
        "bytes": bytes_below(directory),
        "vocabulary": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "positions": shape.usable_positions,
        **({} if shape.image is None else {"image": asdict(shape.image)}),
        "layers": [_layer(layer) for layer in shape.layers],
        **({} if shape.decoder is None else {"decoder_layers": [_written_by(layer) for layer in shape.decoder.layers]}),
        "int8": {path: form.value for path, form in shape.int8},
    }
    if record is not None:
        facts["artifact"] = {
            key: getattr(record, key) for key in ("stage", "digest", "parent", "seed", "created", "settings", "lineage")
        }
    if isinstance(probe.product, Bundle):
        facts["target"] = probe.product.manifest.target
        if probe.product.takes_texts:
            facts["text_in"] = True
        facts["measurements"] = probe.product.manifest.measurements
        if probe.product.manifest.target == MOBILE.name:
            facts["providers"] = _providers(probe.product)
    return facts


def _providers(bundle: Bundle) -> dict[str, Any]:
    """Return for each model file what the execution providers of phones would take of it, at its longest length."""
    manifest = bundle.manifest
    sizes = sizes_at(manifest.lengths[-1]) if manifest.lengths else {}
    return {
        name: {share.provider.name: share.to_json() for share in shares_of(inside(bundle.directory, name), sizes)}
        for name in manifest.models
    }


def _layer(layer: LayerShape) -> dict[str, Any]:
    return {"heads": layer.heads, "head_size": layer.head_size, "ffn": layer.ffn, "attention": layer.attention}


def _written_by(layer: LayerShape) -> dict[str, Any]:
    return {**_layer(layer), "cross_heads": layer.cross_heads}


def evaluate_model(source: str, look: Look, *, progress: Progress = silent) -> dict[str, Any]:
    """Return the metric of a model on labelled examples, and beside a teacher the paired difference."""
    measured = _measured(_subject(source, look, progress), look, progress)
    facts: dict[str, Any] = {
        "source": source,
        "data": look.data,
        "metric": measured.metric,
        "examples": len(measured.scores),
        "truncated": measured.truncated,
        "estimate": measured.estimate,
        "low": measured.low,
        "high": measured.high,
        **_besides(measured),
    }
    if look.teacher is not None:
        facts["teacher"] = _difference(measured, _measured(_subject(look.teacher, look, progress), look, progress))
    return facts


def bench_model(source: str, look: Look, *, progress: Progress = silent) -> dict[str, Any]:
    """Return the latency of a model at batch 1 beside the teacher's; without a teacher beside its own, as a control.

    Of one that writes, the time of a text, and how many it writes in a second.
    """
    subject = _subject(source, look, progress)
    baseline = subject if look.teacher is None else _subject(look.teacher, look, progress)
    with tempfile.TemporaryDirectory() as scratch:
        candidate_graph, size = subject.probe.graph(Path(scratch) / "candidate")
        baseline_graph, baseline_size = baseline.probe.graph(Path(scratch) / "baseline")
        rows = timed_rows(baseline.data, TEXTS)
        compared = compare(
            baseline_graph,
            candidate_graph,
            subject.calls(same_rows(subject.data, baseline.data, rows)),
            baseline_calls=baseline.calls(rows),
            threads=look.threads,
            rounds=look.rounds,
            progress=progress,
        )
    ratio = ratio_interval(compared.baseline.rounds, compared.candidate.rounds, sides=2)
    return {
        "source": source,
        "baseline": look.teacher or f"{source} (control)",
        "threads": look.threads,
        "texts": len(compared.lengths),
        "tokens_median": float(np.median(compared.lengths)),
        "p50_ms": compared.candidate.p50_ms,
        "p95_ms": compared.candidate.p95_ms,
        "bytes": size,
        "baseline_p50_ms": compared.baseline.p50_ms,
        "baseline_p95_ms": compared.baseline.p95_ms,
        "baseline_bytes": baseline_size,
        "speedup": {"estimate": ratio.estimate, "low": ratio.low, "high": ratio.high},
        **({} if subject.probe.shape.output is None else _texts_a_second(compared)),
        "environment": environment(look.threads).model_dump(mode="json"),
    }


def _texts_a_second(compared: LatencyComparison) -> dict[str, float]:
    sides = {"texts_per_second": compared.candidate, "baseline_texts_per_second": compared.baseline}
    return {name: 1000.0 / float(np.mean(side.rounds)) for name, side in sides.items()}


def _subject(source: str, look: Look, progress: Progress) -> Subject:
    if look.data is None:
        raise BadInput("no examples are named", where="--data", fix="Give --data FILE.")
    directory = local_directory(source)
    probe = Probe.open(directory, tree_digest(directory))
    cache, task = look.cache.expanduser(), _task_of(probe)
    table = task.read(Wanted(embedded_table(look.data, "test", cache), look.text, look.text_pair, look.label), "test")
    if table.labels is None and task.writes is not Writes.ON:
        raise BadInput("has no label column", where=table.source, fix="Name it with --label.")
    expected = task.targets(table, probe.shape.labels)
    if isinstance(expected, NextTargets) and look.teacher is not None:  # both are judged on the blocks of one
        teacher = Probe.open(local_directory(look.teacher), "").product
        expected = NextTargets(teacher.tokenizing, teacher.shape.usable_positions)
    data = encode(
        table,
        probe.product.reader,
        expected,
        max_length=probe.shape.usable_positions,
        cache=cache,
        shared=task.shared,
        generation=None if probe.shape.output is None else probe.product.generation,
        progress=progress("encode"),
    )
    return Subject(probe, data)


def _task_of(probe: Probe) -> Task:
    if probe.shape.output is not None:
        return task_named(probe.shape.output.task)
    if probe.shape.head is None:
        raise BadInput("the model has no head, so it answers nothing", where=str(probe.directory))
    return task_named(probe.shape.head.task)


def _measured(subject: Subject, look: Look, progress: Progress) -> Measurement:
    with tempfile.TemporaryDirectory() as scratch:
        return measure(
            subject,
            _task_of(subject.probe),
            name=str(look.data),
            reference=None,
            settings=MeasureSettings(threads=look.threads),
            scratch=Path(scratch),
            progress=progress,
        )


def _besides(measured: Measurement) -> dict[str, Any]:
    figures = {one.name: one.model_dump(exclude={"name"}) for one in measured.besides}
    return {"besides": figures} if figures else {}


def _difference(candidate: Measurement, teacher: Measurement) -> dict[str, Any]:
    interval = gain_interval(teacher, candidate, sides=2)
    facts = {
        "estimate": teacher.estimate,
        "difference": {"estimate": interval.estimate, "low": interval.low, "high": interval.high},
        **_besides(teacher),
    }
    if teacher.paired_test != "proportions":
        return facts
    ours, theirs = np.asarray(candidate.scores), np.asarray(teacher.scores)
    worse, better = int((ours < theirs).sum()), int((ours > theirs).sum())
    counts = {"teacher_only_right": worse, "candidate_only_right": better, "mcnemar_p": mcnemar_p(worse, better)}
    return facts | counts
