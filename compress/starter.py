"""A commented recipe to start from, checked against the checkpoint and the data it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from compress.recipe import make_recipe
from compress.settings import DistillSettings, ExportSettings, PruneSettings, QuantizeSettings, TrimSettings
from compress.sources import EMBEDDED, embedded_table, embedded_teacher
from models.checkpoint import Checkpoint
from models.columns import Wanted
from models.errors import BadInput, Unsupported
from models.files import write_text
from models.tasks import task_named

# What a first recipe sets; every other key is listed below it with its default, switched off.
CHOSEN: dict[str, dict[str, Any]] = {
    "distill": {"layers": 3, "epochs": 3.0, "learning_rate": 2e-4, "batch_size": 64},
    "prune": {"speedup": 1.3},
    "trim": {"min_count": 1},
    "quantize": {"activations": "dynamic"},
    "export": {"target": "cpu"},
}
STAGES: dict[str, type[BaseModel]] = {
    "distill": DistillSettings,
    "prune": PruneSettings,
    "trim": TrimSettings,
    "quantize": QuantizeSettings,
    "export": ExportSettings,
}
OFF = ("trim",)  # it makes a model less fit for texts of another kind, so it is to be wished for
WIDTH = 44


def write_starter(
    out: Path, *, teacher: str | None, train: str | None, validation: str | None, name: str, cache: Path
) -> dict[str, Any]:
    """Write a recipe and return what it was made for.

    Raises:
        BadInput: the file is there already, a checkpoint or data set is not named, or the labels do not fit the model.
        Unsupported: the checkpoint writes, and has no head.
        BadFile, Unsupported: as the checkpoint and the tables raise.
    """
    if out.exists():
        raise BadInput("the file is there already", where=str(out), fix="Choose another --out.")
    for option, value in (("--teacher", teacher), ("--train", train), ("--validation", validation)):
        if value is None:
            raise BadInput("is needed to write a recipe", where=option)
    checkpoint = Checkpoint.load(embedded_teacher() if teacher == EMBEDDED else str(teacher))
    shape = checkpoint.shape
    if shape.output is not None:
        fix = "Write it by hand: docs/recipe.md lists the keys, and multi30k is one that is shipped."
        raise Unsupported("a recipe for a model that writes", where=str(teacher), fix=fix)
    if shape.head is None:
        raise BadInput("the checkpoint has no head", where=str(teacher), fix="Fine-tune it first: compress train.")
    counts, task = {}, task_named(shape.head.task)
    for role, source in (("train", str(train)), ("validation", str(validation))):
        table = task.read(Wanted(embedded_table(source, role, cache)), role)
        if table.labels is not None:
            task.targets(table, shape.labels)
        counts[role] = len(table)
    layers = max(1, len(shape.layers) // 2)
    text = "\n".join(_lines(name, str(teacher), str(train), str(validation), layers)) + "\n"
    make_recipe(yaml.safe_load(text), where=str(out))
    write_text(out, text)
    return {"recipe": str(out), "family": shape.family, "labels": list(shape.labels), "examples": counts}


def _lines(name: str, teacher: str, train: str, validation: str, layers: int) -> Iterator[str]:
    yield "# A recipe for `compress run`. Keys with a # in front have the value they show anyway."
    yield "# docs/recipe.md lists all keys, those of losses and of measuring too."
    yield f"name: {_yaml(name)}"
    yield f"teacher: {_yaml(teacher)}"
    yield "seed: 0"
    yield ""
    yield "data:"
    yield f"  train: {_yaml(train)}"
    yield f"  validation: {_yaml(validation)}    # the gates judge on these"
    yield "  # test: held-out.csv    # only the report is made on these"
    yield "  # foreign: texts-from-elsewhere.csv    # on these trim must change few answers"
    for stage, settings in STAGES.items():
        chosen = CHOSEN[stage] | ({"layers": layers} if stage == "distill" else {})
        mark = "# " if stage in OFF else ""
        yield ""
        yield f"{mark}{stage}:    # {_first(settings)}"
        yield from (f"{mark}  {_key(key, value, settings)}" for key, value in chosen.items())
        yield from (f"{mark}  # {line}" for line in _others(settings, set(chosen)))
    yield ""
    yield "gates:    # a stage that fails one stops the run with exit code 3"
    yield "  default:"
    yield "    accuracy: {max_loss: 1.0}    # points below the teacher that the 95 % lower bound may reach"
    yield "    speed: {min_speedup: 1.0}    # over the teacher, ONNX Runtime against ONNX Runtime"
    yield ""
    yield "on_failure: stop    # or backtrack: try milder settings before giving up"


def _others(settings: type[BaseModel], chosen: set[str]) -> Iterator[str]:
    hidden = {"speedup", "sparsity"} if "speedup" in chosen else set()
    for key, field in settings.model_fields.items():
        if key not in chosen | hidden and not isinstance(field.get_default(call_default_factory=True), BaseModel):
            yield _key(key, field.default, settings)


def _key(key: str, value: Any, settings: type[BaseModel]) -> str:
    shown = f"{key}: {_yaml(getattr(value, 'value', value))}"
    return f"{shown:<{WIDTH}}  # {settings.model_fields[key].description}"


def _yaml(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    return str(yaml.safe_dump(plain, default_flow_style=True, width=1000)).removesuffix("\n").removesuffix("\n...")


def _first(settings: type[BaseModel]) -> str:
    return (settings.__doc__ or "").strip().splitlines()[0]
