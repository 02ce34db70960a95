"""A bundle on the device that it lies on: proven there, and timed beside what its gate promised."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import onnxruntime

from compress.artifact import RECORD_FILE, open_artifact
from compress.device_record import DEVICE_FORMAT, DeviceReport, LengthTimes, Times
from export.bundle import Bundle
from export.latency import measure, profile
from export.manifest import GOLDEN_FILE, Golden
from export.on_device import golden_calls, random_calls, timed_model
from export.processor import processor
from export.verify import Checked, advice, check_bundle, verified
from models.errors import Mismatch
from models.progress import Progress, silent

ROUNDS = 4


@final
@dataclass(frozen=True, slots=True)
class Promise:
    """What was measured of a bundle before it was handed over, as far as its manifest says."""

    p50_ms: float | None
    threads: int
    cpu: str | None

    @staticmethod
    def of(bundle: Bundle) -> Promise:
        """Return the promise of a bundle."""
        told = bundle.manifest.measurements
        time = _of(told, "bundle", "p50_ms", float)
        threads = _of(told, "environment", "threads", int)
        return Promise(
            p50_ms=time if time is not None and time > 0 else None,
            threads=threads if threads is not None and threads > 0 else 1,
            cpu=_of(told, "environment", "cpu", str),
        )


def verify_here(directory: Path) -> dict[str, Any]:
    """Return what was checked of a bundle that is right in every point, and its latency here beside the promised one.

    Raises:
        BadFile, Mismatch: as `verify_bundle` raises, or as a sealed artifact does.
    """
    checked = _checked(directory)
    facts = {"bundle": str(directory), "verified": True, **asdict(verified(checked))}
    bundle, promise = checked.bundle, Promise.of(checked.bundle)
    calls = golden_calls(bundle, checked.golden)
    here = measure(timed_model(bundle), calls, threads=promise.threads, rounds=ROUNDS)
    latency: dict[str, Any] = {"p50_ms": here.p50_ms, "threads": promise.threads, "on": processor().name}
    if promise.p50_ms is not None:
        latency |= {"promised_p50_ms": promise.p50_ms, "promised_on": promise.cpu or "unknown"}
        latency |= {"times_the_promise": here.p50_ms / promise.p50_ms}
    return facts | {"latency": latency}


def device_report(directory: Path, *, threads: int, passes: int, progress: Progress = silent) -> DeviceReport:
    """Return what a bundle is and costs on this device; one that computes something else here is told of, not refused.

    Raises:
        BadFile: as `check_bundle` raises.
        BadInput: there is less than one thread or pass.
        Mismatch: what it computes here is no number.
    """
    bundle, examples = _checked(directory)
    here, golden, drawn = processor(), golden_calls(bundle, examples), random_calls(bundle)
    cost = profile(timed_model(bundle), [*golden, *drawn], threads=threads, passes=passes, progress=progress)
    by_length: dict[int, list[float]] = {}
    for call, times in zip(drawn, cost.times_ms[len(golden) :], strict=True):
        by_length.setdefault(call.tokens, []).extend(times)
    return DeviceReport(
        format=DEVICE_FORMAT,
        bundle=bundle.manifest.digest,
        target=bundle.manifest.target,
        cpu=here.name or "unknown",
        flags=None if here.flags is None else here.told_flags,
        cores=os.cpu_count() or 1,
        threads=threads,
        os=platform.platform(terse=True),
        python=platform.python_version(),
        onnxruntime=onnxruntime.__version__,
        max_abs=_gap(bundle, examples),
        tolerance=examples.tolerance,
        load_ms=cost.load_ms,
        before_bytes=cost.before_bytes,
        peak_bytes=cost.peak_bytes,
        golden=Times(**_figures([ms for times in cost.times_ms[: len(golden)] for ms in times])),
        lengths=[LengthTimes(tokens=tokens, **_figures(times)) for tokens, times in by_length.items()],
        promised_p50_ms=Promise.of(bundle).p50_ms,
    )


def _checked(directory: Path) -> Checked:
    """Return a bundle whose files are right, those of a sealed artifact with the record that lies beside them."""
    if not (directory / RECORD_FILE).exists():
        return check_bundle(directory)
    open_artifact(directory)
    return check_bundle(directory, besides=(RECORD_FILE,))


def _gap(bundle: Bundle, golden: Golden) -> float:
    gap = float(np.max(bundle.golden_gap(golden.examples)))
    if not np.isfinite(gap):
        where, fix = str(bundle.directory / GOLDEN_FILE), advice(bundle.manifest, processor())
        raise Mismatch("the model gives values that are not finite", where=where, fix=fix)
    return gap


def _figures(times: Sequence[float]) -> dict[str, Any]:
    quantiles = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99}
    return {"calls": len(times), **{name: float(np.quantile(times, share)) for name, share in quantiles.items()}}


def _of(told: Mapping[str, Any], group: str, name: str, kind: type[Any]) -> Any:
    """Return a measurement of a manifest, or None where it says none or none of this kind."""
    found = told.get(group)
    value = found.get(name) if isinstance(found, Mapping) else None
    return value if isinstance(value, kind) and not isinstance(value, bool) else None
