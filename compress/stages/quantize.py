"""Put a model into int8, and say what each layer alone costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from compress.quantization.calibration import calibrate
from compress.quantization.schemes import choose, quantize
from compress.quantization.sensitivity import sensitivity
from compress.settings import QuantizeSettings
from compress.stage import Context, Output, Stage
from models.checkpoint import Checkpoint
from models.encoded import Encoded
from models.shape import Int8Form

MILDER_STEP = 2  # linear layers that go back to float after a failed gate


def run(parent: Checkpoint, settings: QuantizeSettings, context: Context) -> Output[Checkpoint]:
    """Return the model in int8. Training examples are needed for static ranges and for the sensitivity table."""
    network = parent.network()
    forms = choose(network, settings)
    static = [path for path, form in forms.items() if form is Int8Form.STATIC]
    ranges = None
    if static:
        ranges = calibrate(
            network,
            static,
            context.train,
            method=settings.calibration,
            percent=settings.percentile,
            examples=settings.calibration_examples,
            progress=context.progress,
        )
    details: dict[str, Any] = {
        "int8": {path: form.value for path, form in forms.items()},
        "kept_float": [path for path in choose(network, _everything(settings)) if path not in forms],
    }
    if settings.sensitivity:
        examples = first_rows(context.train, settings.calibration_examples)
        costs = sensitivity(parent, forms, examples, context.task, ranges=ranges, progress=context.progress)
        details["sensitivity"] = [cost._asdict() for cost in costs]
    return Output(quantize(parent, forms, ranges), details)


def milder(settings: QuantizeSettings, details: dict[str, Any]) -> QuantizeSettings | None:
    """Return settings that leave the most sensitive linear layers in float, until half of them are."""
    costs = details.get("sensitivity", [])
    linear = [cost["name"] for cost in costs if cost["form"] != Int8Form.TABLE.value]
    kept = len(details["kept_float"])
    if not linear or kept + MILDER_STEP > (kept + len(linear)) / 2:
        return None
    return settings.model_copy(update={"keep_float": (*settings.keep_float, *linear[:MILDER_STEP])})


def first_rows(data: Encoded, count: int) -> Encoded:
    """Return the first `count` rows of a data set, or all where there are fewer."""
    rows = min(count, len(data))
    return replace(
        data,
        ids=data.ids[: int(data.offsets[rows])],
        offsets=data.offsets[: rows + 1],
        second=np.asarray(data.second[:rows]),
        targets=np.asarray(data.targets[:rows]),
    )


def _everything(settings: QuantizeSettings) -> QuantizeSettings:
    return settings.model_copy(update={"keep_float": (), "embeddings": True})


QUANTIZE: Stage[QuantizeSettings, Checkpoint] = Stage("quantize", QuantizeSettings, run, milder)
