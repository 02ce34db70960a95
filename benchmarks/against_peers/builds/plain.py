"""`onnxruntime.quantization` on what `torch.onnx.export` writes, both as their documentation has it: two models.

Runs with the packages of `requirements/plain.txt` alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoModelForSequenceClassification

FLOAT_FILE, INT8_FILE = "model.onnx", "model_int8.onnx"
NAMES = ("input_ids", "attention_mask", "token_type_ids")


def build(checkpoint: Path, texts: list[dict[str, list[int]]], out: Path) -> dict[str, Any]:
    """Write the float model and its dynamic int8 form into `out` and return which file is which."""
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32).eval()
    names = [name for name in NAMES if name != "token_type_ids" or hasattr(model.config, "type_vocab_size")]
    example = torch.tensor([texts[0]["ids"]] * 2)
    arrays = {"input_ids": example, "attention_mask": torch.ones_like(example)}
    arrays["token_type_ids"] = torch.zeros_like(example)
    batch, time = torch.export.Dim("batch"), torch.export.Dim("time")
    torch.onnx.export(
        model,
        kwargs={name: arrays[name] for name in names},
        f=str(out / FLOAT_FILE),
        input_names=names,
        output_names=["logits"],
        dynamic_shapes={name: {0: batch, 1: time} for name in names},
        external_data=False,
        dynamo=True,
    )
    # The exporter notes the shapes of the weights, which the quantizer transposes: it then refuses its own graph.
    graph = onnx.load(out / FLOAT_FILE)
    del graph.graph.value_info[:]
    quantize_dynamic(graph, out / INT8_FILE, per_channel=True, weight_type=QuantType.QInt8)
    return {"onnxruntime fp32": FLOAT_FILE, "onnxruntime int8": INT8_FILE}
