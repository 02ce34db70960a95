"""Olive: conversion, fusion for transformers, then dynamic int8, as one workflow.

Runs with the packages of `requirements/olive.txt` alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from olive import run
from olive.telemetry import Telemetry


def build(checkpoint: Path, texts: list[dict[str, list[int]]], out: Path) -> dict[str, Any]:
    """Write the int8 model into `out` and return its file; `texts` are not needed."""
    workflow = {
        "input_model": {"type": "HfModel", "model_path": str(checkpoint), "task": "text-classification"},
        "passes": {
            "conversion": {"type": "OnnxConversion"},
            "fusion": {"type": "OrtTransformersOptimization"},
            "int8": {"type": "OnnxDynamicQuantization"},
        },
        "output_dir": str(out / "workflow"),
        "cache_dir": str(out / "cache"),
        "log_severity_level": 2,
    }
    Telemetry().disable_telemetry()
    run(workflow)
    found = sorted((out / "workflow").rglob("*.onnx"))
    if len(found) != 1:
        raise FileNotFoundError(f"Olive wrote {len(found)} models: {', '.join(map(str, found))}")
    return {"Olive int8": str(found[0].relative_to(out))}
