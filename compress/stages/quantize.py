"""Put weights, activations and embedding tables into int8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from compress.curvature import curvature, table_curvature
from compress.pruning.latency_table import Clock
from compress.pruning.writing_table import TextClock
from compress.quantization.calibration import calibrate
from compress.quantization.refit import refitted
from compress.quantization.rounding import TABLE_LEVELS, rounded_rows
from compress.quantization.schemes import (
    FINEST,
    WORDS,
    choices_in_blocks,
    form_in_blocks,
    forms_of,
    linear_paths,
    quantize,
)
from compress.quantization.sensitivity import affordable, sensitivities
from compress.settings import QuantizeSettings
from compress.stage import Context, Output, Stage
from models.checkpoint import Checkpoint
from models.kinds import BLOCKS, TABLES, Int8Form
from models.layers.quantized import REDUCED_LIMIT, WEIGHT_LIMIT

STEP = 2  # layers that a milder attempt leaves in float besides


def run(parent: Checkpoint, settings: QuantizeSettings, context: Context) -> Output[Checkpoint]:
    """Return the checkpoint in int8; details hold the form of every module and what each alone costs, and where blocks
    were asked for what was chosen and the ms of a word by each choice.

    Training examples are needed for static ranges, weights in 4 bits, compensation and the sensitivity table only.

    Raises:
        BadInput: the model is in int8 already, `keep_float` names no layer, examples are needed and missing, or blocks
            are asked for and the model writes nothing.
    """
    forms = forms_of(
        parent,
        activations=settings.activations,
        embeddings=settings.embeddings,
        keep_float=settings.keep_float,
    )
    timed: dict[str, Any] = {}
    form = form_in_blocks(settings)
    if form is not None:
        forms, timed["blocks"] = _fastest(parent, forms, form, context)
    model = _compensated(parent, forms, settings, context) if settings.compensate else parent
    static = [path for path, form in forms.items() if form is Int8Form.STATIC]
    ranges = {}
    if static:
        ranges = calibrate(
            model,
            static,
            context.train.drawn(settings.calibration_examples, seed=context.seed),
            method=settings.calibration,
            percentile=settings.percentile,
            progress=context.progress,
        )
    curvatures = {}
    in_four_bits = [path for path in linear_paths(parent.shape) if _in_four_bits(path, forms, settings)]
    if in_four_bits:
        curvatures = curvature(
            model,
            in_four_bits,
            context.train,
            examples=settings.calibration_examples,
            seed=context.seed,
            progress=context.progress,
        )
    limit = REDUCED_LIMIT if settings.reduced_range else WEIGHT_LIMIT
    product = quantize(model, forms, ranges, curvatures, limit=limit)
    table, examples = [], 0
    if settings.sensitivity and forms:
        data = context.train.drawn(settings.calibration_examples, seed=context.seed)
        data = context.train.drawn(affordable(parent, len(forms), data), seed=context.seed)
        examples = len(data)
        found = sensitivities(model, product, data, context.task, progress=context.progress)
        table = [one.to_json() for one in found]
    details: dict[str, Any] = {
        "sensitivity": table,
        "sensitivity_examples": examples,
        "forms": {path: form.value for path, form in forms.items()},
        "linear": len(linear_paths(parent.shape)),
        "float": [path for path in linear_paths(parent.shape) if path not in forms],
    }
    return Output(product, details | timed)


def _fastest(
    parent: Checkpoint, forms: Mapping[str, Int8Form], form: Int8Form, context: Context
) -> tuple[dict[str, Int8Form], dict[str, Any]]:
    """Return the forms by which a word takes the least time, and what is told of the choice."""
    choices = choices_in_blocks(parent.shape, forms, form)
    clock = TextClock.of(
        parent, Clock(context.train, context.threads, context.cache, int8=True, progress=context.progress)
    )
    times = clock.words({name: parent.shape.with_int8(choice) for name, choice in choices.items()})
    chosen = min(choices, key=lambda name: times[name])
    return choices[chosen], {**BLOCKS[form]._asdict(), "chosen": chosen, "word_ms": times}


def _in_four_bits(path: str, forms: Mapping[str, Int8Form], settings: QuantizeSettings) -> bool:
    if path not in forms:
        return False
    return settings.weights == "int4" or (forms[path] in BLOCKS and BLOCKS[forms[path]].bits == 4)


def _compensated(
    parent: Checkpoint, forms: Mapping[str, Int8Form], settings: QuantizeSettings, context: Context
) -> Checkpoint:
    """Return the parent in float with words that hold only values of their few bits, and output projections that make
    up for the rounding of all tables.
    """
    examples = settings.calibration_examples
    model = parent
    if forms.get(WORDS) in TABLE_LEVELS:
        moments = table_curvature(
            parent, WORDS, context.train, examples=examples, seed=context.seed, progress=context.progress
        )
        name = f"{WORDS}.weight"
        model = replace(
            parent, weights={**parent.weights, name: rounded_rows(parent.weights[name], forms[WORDS], moments)}
        )
    rounded = quantize(model, {path: form for path, form in forms.items() if form in TABLES})
    data = context.train.drawn(examples, seed=context.seed)
    projections = refitted(parent, rounded, data, progress=context.progress)
    return replace(model, weights={**model.weights, **projections})


def milder(settings: QuantizeSettings, details: dict[str, Any]) -> QuantizeSettings | None:
    """Return settings that give bits back to what has few, or else leave more layers in float.

    First a word table that is the most sensitive, then the weights of the linear layers, whose blocks become small
    first, and then the two most sensitive linear layers, up to half of all.
    """
    names = [row["name"] for row in details["sensitivity"]]
    if names and details["forms"].get(names[0]) in (Int8Form.TABLE4.value, Int8Form.TABLE2.value):
        return settings.model_copy(update={"embeddings": "int4" if settings.embeddings == "int2" else "int8"})
    if settings.weights == "int4_blocks" and not any(Int8Form(form) in BLOCKS for form in details["forms"].values()):
        settings = settings.model_copy(update={"weights": "int8", "block_size": None})  # what was quicker, and failed
    if (settings.block_size or FINEST) > FINEST:
        return settings.model_copy(update={"block_size": FINEST})
    if settings.weights in ("int4", "int4_blocks"):
        return settings.model_copy(update={"weights": "int8", "block_size": None})
    tables = {form.value for form in TABLES}
    # A table that words are written with may be in blocks.
    candidates = [name for name in names if details["forms"].get(name) not in tables and not name.endswith(WORDS)]
    more = tuple(candidates[:STEP])
    if not more or len(details["float"]) + len(more) > details["linear"] / 2:
        return None
    return settings.model_copy(update={"keep_float": (*settings.keep_float, *more)})


QUANTIZE: Stage[QuantizeSettings, Checkpoint] = Stage("quantize", QuantizeSettings, run, milder)
