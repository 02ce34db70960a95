"""The bundle that a run hands over: the exported one, with its lineage, what was measured of it, and its page."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from compress.ledger import BUNDLE_FOLDER
from compress.model_card import model_card, told_stages
from compress.record import Measurement, RunResult
from export.bundle import Bundle
from export.manifest import MANIFEST_FILE, README_FILE, FileEntry
from models.files import new_directory, sha256_bytes, write_bytes, write_json
from models.provenance import Provenance


def publish(run: Path, result: RunResult, source: Provenance) -> Path | None:
    """Write `bundle/` beside the artifacts of a run that ends in an export and passed, and return its path; `source` is
    where the teacher comes from.

    The sealed artifact stays as it is: what a machine measured must not change its digest. Where there is nothing to
    hand over, the bundle of an earlier run is removed: nobody may take it for this one's.
    """
    last = result.last
    target = run / BUNDLE_FOLDER
    if not result.passed or not (run / last.directory / MANIFEST_FILE).exists():
        if (target / MANIFEST_FILE).exists():
            shutil.rmtree(target)
        return None
    bundle = Bundle.open(run / last.directory)
    lineage = [
        step
        for stage in told_stages(result)
        for step in (
            *(one.model_dump(mode="json") for one in stage.steps),
            {"stage": stage.stage, "artifact": stage.artifact.digest, "settings": stage.artifact.settings},
        )
    ]
    measured_too = bundle.manifest.model_copy(update={"lineage": lineage, "measurements": measured(result)})
    page = model_card(result, source, replace(bundle.card, manifest=measured_too)).encode()
    entry = FileEntry(sha256=sha256_bytes(page), bytes=len(page))
    manifest = measured_too.model_copy(update={"files": {**measured_too.files, README_FILE: entry}})
    if (target / MANIFEST_FILE).exists() and Bundle.open(target).manifest == manifest:
        return target
    with new_directory(target, replace=(target / MANIFEST_FILE).exists()) as partial:
        bundle.save(partial)
        write_bytes(partial / README_FILE, page)
        write_json(partial / MANIFEST_FILE, manifest.model_dump(mode="json"))
    return target


def measured(result: RunResult) -> dict[str, Any]:
    """Return what the manifest tells of the run: the teacher and the bundle, and the verdicts between."""
    first, last = result.stages[0], result.last
    return {
        "teacher": _told(first.validation),
        "bundle": _told(last.validation),
        "verdicts": [verdict.model_dump(mode="json") for verdict in last.verdicts],
        "environment": last.validation.environment.model_dump(mode="json"),
    }


def _told(measurement: Measurement) -> dict[str, Any]:
    latency = measurement.latency
    return {
        "metric": measurement.metric,
        "examples": len(measurement.scores),
        "estimate": measurement.estimate,
        "low": measurement.low,
        "high": measurement.high,
        "bytes": measurement.bytes,
        "p50_ms": None if latency is None else latency.p50_ms,
        "p95_ms": None if latency is None else latency.p95_ms,
    }
