"""Optimum: export by its command line's function, then dynamic int8 per channel with its settings for AVX512-VNNI.

Runs with the packages of `requirements/optimum.txt` alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optimum.exporters.onnx import main_export
from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig


def build(checkpoint: Path, texts: list[dict[str, list[int]]], out: Path) -> dict[str, Any]:
    """Write the int8 model into `out` and return its file; `texts` are not needed."""
    main_export(str(checkpoint), output=out / "float", task="text-classification")
    settings = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
    ORTQuantizer.from_pretrained(out / "float").quantize(save_dir=out, quantization_config=settings)
    return {"Optimum int8": "model_quantized.onnx"}
