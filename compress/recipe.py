"""A recipe: everything a run is told, said once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from compress.goal_settings import GateSettings, MeasureSettings, SearchSettings
from compress.settings import (
    DataSettings,
    DistillSettings,
    ExportSettings,
    PruneSettings,
    QuantizeSettings,
    Settings,
    TrainSettings,
    TrimSettings,
)
from compress.shipped import shipped_names, shipped_text
from models.errors import BadFile, BadInput, nearest

MAX_RECIPE_BYTES = 1 << 20


# What only words have, with the value that asks for nothing; and the passes that its copies are a part of.
WORDS_ALONE: Mapping[str, Any] = {
    "data.foreign": None,
    "data.max_length": None,
    "trim": None,
    "distill.copies": 0,
    "distill.embeddings": "float",
    "prune.recovery.copies": 0,
    "prune.recovery.embeddings": "float",
    "quantize.compensate": False,
}
PASSES = {
    "distill.copies": ("distill.epochs",),
    "prune.recovery.copies": ("prune.recovery.epochs", "prune.round_epochs"),
}


class Recipe(Settings):
    """One run: the teacher, the data, the stages that are asked for, and their gates."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Name of the run's folder.")
    teacher: str | None = Field(None, description="Checkpoint directory, hub name, or `standard-library`.")
    ensemble: tuple[str, ...] = Field(
        (), description="More teachers with the same labels: students learn from the mean of all their logits."
    )
    task: str | None = Field(None, description="What the model does; what the teacher's own head does if left out.")
    data: DataSettings = Field(default_factory=DataSettings, description="The examples.")
    train: TrainSettings | None = Field(None, description="Fine-tune or train the teacher first.")
    distill: DistillSettings | None = Field(None, description="Distil the teacher into a student.")
    prune: PruneSettings | None = Field(None, description="Cut out heads and FFN neurons.")
    trim: TrimSettings | None = Field(None, description="Drop pieces of the vocabulary, positions and token types.")
    quantize: QuantizeSettings | None = Field(None, description="Put the model into int8.")
    export: ExportSettings | None = Field(None, description="Write the ONNX bundle.")
    gates: GateSettings = Field(default_factory=GateSettings, description="What each stage's output must pass.")
    measure: MeasureSettings = Field(default_factory=MeasureSettings, description="How it is measured.")
    search: SearchSettings | None = Field(None, description="What `compress search` looks for.")
    on_failure: Literal["stop", "backtrack"] = Field(
        "stop", description="A failed gate stops the run, or first lets the stage try milder settings."
    )
    seed: int = Field(0, ge=0, lt=1 << 31, description="Seed of everything that is drawn.")
    threads: int | None = Field(None, ge=1, description="Threads for training; all cores if left out.")


def shipped_recipes() -> dict[str, str]:
    """Return the recipes that come with the package: name -> YAML text."""
    return {name: shipped_text(name) for name in shipped_names()}


def load_recipe(source: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Return the recipe in a YAML file, or the shipped recipe of that name, with overrides by dotted key.

    Raises:
        BadFile: the file is missing or not YAML.
        BadInput: a key is unknown (the nearest is named) or a value is not allowed; all problems in one message.
    """
    shipped = shipped_names()
    path = Path(source)
    if path.is_file():
        if path.stat().st_size > MAX_RECIPE_BYTES:
            raise BadFile("larger than 1 MB, which no recipe is", where=source)
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise BadFile(f"not UTF-8 text ({error.reason} at byte {error.start})", where=source) from None
    elif source in shipped:
        text = shipped_text(source)
    else:
        known = ", ".join(shipped)
        raise BadFile("there is no such recipe file", where=source, fix=f"Shipped recipes: {known}.")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise BadFile(f"not valid YAML ({' '.join(str(error).split())})", where=source) from None
    if not isinstance(value, dict):
        raise BadFile("a recipe is a mapping of keys", where=source)
    return make_recipe(merged(value, overrides or {}), where=source)


def make_recipe(value: Mapping[str, Any], *, where: str) -> Recipe:
    """Return the recipe of a plain mapping; errors as in `load_recipe`."""
    try:
        return Recipe.model_validate(dict(value))
    except ValidationError as error:
        problems = sorted(_explain(Recipe, problem) for problem in error.errors())
        raise BadInput("; ".join(problems), where=where) from None


def merged(value: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return `value` with dotted keys set (`prune.speedup`); a stage given as null is switched off."""
    result = dict(value)
    for dotted, item in overrides.items():
        head, _, rest = dotted.partition(".")
        if rest:
            inner = result.get(head)
            result[head] = merged(inner if isinstance(inner, dict) else {}, {rest: item})
        else:
            result[head] = item
    return result


def of_words_alone(recipe: Recipe) -> list[str]:
    """Return the keys of what a recipe asks for that only words have."""
    given = recipe.model_dump(mode="json")
    return [key for key, nothing in WORDS_ALONE.items() if _at(given, key, nothing) != nothing]


def without_words(recipe: Recipe, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides by which a recipe does without what only words have, but for the keys that were `asked` for;
    the passes over changed copies of texts go to what they were copies of.
    """
    given = recipe.model_dump(mode="json")
    left: dict[str, Any] = {}
    for key in of_words_alone(recipe):
        if any(own == key or own.startswith(f"{key}.") for own in asked):
            continue
        left[key] = WORDS_ALONE[key]
        for passes in PASSES.get(key, ()):
            if passes not in asked:
                left[passes] = _at(given, passes, 0) * (1 + _at(given, key, 0))
    return left


def _at(value: Mapping[str, Any], dotted: str, absent: Any) -> Any:
    """Return what stands at a dotted key, or `absent` where a stage on the way is not there."""
    head, _, rest = dotted.partition(".")
    inner = value[head]
    if not rest:
        return inner
    return absent if inner is None else _at(inner, rest, absent)


def keys(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every dotted key of a recipe with its description."""
    for name, field in model.model_fields.items():
        yield prefix + name, field.description or ""
        inner = _inner(field.annotation)
        if inner is not None:
            yield from keys(inner, f"{prefix}{name}.")


def _inner(annotation: Any) -> type[BaseModel] | None:
    """Return the settings class in an annotation such as `PruneSettings | None`."""
    choices = (annotation, *getattr(annotation, "__args__", ()))
    return next((kind for kind in choices if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _explain(model: type[BaseModel], problem: ErrorDetails) -> str:
    place = [str(part) for part in problem["loc"]]
    dotted = ".".join(place)
    if problem["type"] != "extra_forbidden":
        return f"{dotted or 'recipe'}: {problem['msg'].removeprefix('Value error, ')}"
    parent: type[BaseModel] | None = model
    for part in place[:-1]:
        field = parent.model_fields.get(part) if parent else None
        parent = _inner(field.annotation) if field else None
    known = sorted(parent.model_fields) if parent else []
    hint = nearest(place[-1], known) or f" Known: {', '.join(known)}."
    return f"unknown key '{dotted}'.{hint}"
