"""docs/recipe.md, made from the settings classes: python tests/support/recipe_page.py"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from compress.goal_settings import GateSettings
from compress.recipe import Recipe

INTRODUCTION = """# The recipe

One YAML file says everything about a run: `compress run recipe.yaml`. `compress init` writes one with comments. A key
that is left out has its default; a stage whose section is left out is not run; a key that is not listed here is an
error. Every key of a stage is also an option of the stage's own command (`distill.losses.mse` is
`compress distill --losses-mse`), and every key can be set for one run with `--set KEY=VALUE`.
"""


def rows(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key that is no group of keys, with its field."""
    for name, field in model.model_fields.items():
        inner = group(field.annotation)
        if inner is None:
            yield prefix + name, field
        elif not (model is GateSettings and name != "default"):
            yield from rows(inner, f"{prefix}{name}.")


def group(annotation: Any) -> type[BaseModel] | None:
    """Return the settings class in an annotation, or None."""
    choices = (annotation, *get_args(annotation))
    return next((kind for kind in choices if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def kind(annotation: Any) -> str:
    """Return what values an annotation takes, in words."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin is dict:
        return f"mapping of {kind(parts[0])} to {kind(parts[1])}"
    if annotation is Any:
        return "value"
    if origin is tuple:
        return f"list of {kind(parts[0])}s"
    if parts and origin is not None and hasattr(annotation, "__metadata__"):
        return kind(parts[0])
    if origin is Union or parts:
        return " or ".join(kind(part) for part in parts if part is not type(None))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(f"`{member.value}`" for member in annotation)
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}[annotation]


def default(field: FieldInfo) -> str:
    """Return a field's default, in words."""
    value = field.default.value if isinstance(field.default, Enum) else field.default
    if value is None or value in ((), {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def table(found: Iterator[tuple[str, FieldInfo]]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    for key, field in found:
        yield f"| `{key}` | {kind(field.annotation)} | {default(field)} | {field.description} |"


def page() -> str:
    """Return the whole page."""
    lines = [INTRODUCTION]
    sections = {name: group(field.annotation) for name, field in Recipe.model_fields.items()}
    lines += table((name, field) for name, field in Recipe.model_fields.items() if sections[name] is None)
    for name, model in sections.items():
        if model is not None:
            lines += ["", f"## {name}", "", str(model.__doc__), ""]
            lines += table(rows(model, f"{name}."))
        if model is GateSettings:
            stages = ", ".join(f"`gates.{stage}`" for stage in GateSettings.model_fields if stage != "default")
            lines += ["", f"{stages} take the same keys and stand in place of the default's, gate by gate."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (Path(__file__).parents[2] / "docs" / "recipe.md").write_text(page(), encoding="utf-8")
