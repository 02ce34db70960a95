"""Reports of devices with figures like real ones."""

from __future__ import annotations

from typing import Any

from compress.device_record import DeviceReport


def device_report(**changes: Any) -> DeviceReport:
    """Return what a small board tells; `changes` take the place of its own values."""
    times = {"calls": 100, "p50_ms": 4.2, "p90_ms": 6.1, "p99_ms": 9.87}
    values: dict[str, Any] = {
        "format": 1,
        "bundle": "b" * 64,
        "target": "cpu",
        "cpu": "Cortex-A76",
        "flags": ["asimddp"],
        "cores": 4,
        "threads": 1,
        "os": "Linux-6.1-aarch64",
        "python": "3.11.2",
        "onnxruntime": "1.23.0",
        "max_abs": 0.0123,
        "tolerance": 0.05,
        "load_ms": 71.0,
        "before_bytes": 60_000_000,
        "peak_bytes": 84_000_000,
        "golden": times,
        "lengths": [{**times, "tokens": 16}, {**times, "tokens": 64, "p50_ms": 15.5}],
        "promised_p50_ms": 1.81,
    }
    return DeviceReport.model_validate(values | changes)
