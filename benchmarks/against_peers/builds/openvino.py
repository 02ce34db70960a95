"""OpenVINO and NNCF: conversion from PyTorch, then int8 after training with calibration texts.

Runs with the packages of `requirements/openvino.txt` alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino
import torch
from transformers import AutoModelForSequenceClassification

NAMES = ("input_ids", "attention_mask", "token_type_ids")


def build(checkpoint: Path, texts: list[dict[str, list[int]]], out: Path) -> dict[str, Any]:
    """Write the int8 model into `out` and return its file."""
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32).eval()
    names = [name for name in NAMES if name != "token_type_ids" or hasattr(model.config, "type_vocab_size")]
    arrays = [_arrays(text, names) for text in texts]
    example = {name: torch.from_numpy(array) for name, array in arrays[0].items()}
    converted = openvino.convert_model(model, example_input=example)
    # All texts are used, where the function's own default is 300.
    quantized = nncf.quantize(
        converted, nncf.Dataset(arrays), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(arrays)
    )
    openvino.save_model(quantized, out / "model.xml")
    return {"OpenVINO NNCF int8": "model.xml"}


def _arrays(text: dict[str, list[int]], names: list[str]) -> dict[str, Any]:
    ids, kinds = np.asarray([text["ids"]], dtype=np.int64), np.asarray([text["kinds"]], dtype=np.int64)
    known = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": kinds}
    return {name: known[name] for name in names}
