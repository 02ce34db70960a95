"""Optimum: the export of a model that writes, with caches, and that in dynamic int8 by its settings for AVX512-VNNI.

Runs with the packages of `requirements/optimum.txt` alone.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from optimum.exporters.onnx import main_export
from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig


def build(checkpoint: Path, texts: list[dict[str, list[int]]], out: Path) -> dict[str, Any]:
    """Write the models into `out` and return a file of each; `texts` are not needed."""
    main_export(str(checkpoint), output=out / "float", task="text2text-generation-with-past")
    shutil.copytree(out / "float", out / "int8", ignore=shutil.ignore_patterns("*.onnx", "*.onnx_data"))
    settings = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
    for file in sorted((out / "float").glob("*.onnx")):
        quantizer = ORTQuantizer.from_pretrained(out / "float", file_name=file.name)
        quantizer.quantize(save_dir=out / "int8", quantization_config=settings, file_suffix="")
    return {f"Optimum {name}": f"{folder}/encoder_model.onnx" for name, folder in (("fp32", "float"), ("int8", "int8"))}
