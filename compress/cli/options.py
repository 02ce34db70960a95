"""Options that several commands share, and options made from the settings classes."""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic import BaseModel

from models.errors import BadInput

DEFAULT_CACHE = Path("~/.cache/compress")

Teacher = Annotated[
    str | None, typer.Option("--teacher", help="Checkpoint directory, hub name (org/name), or `standard-library`.")
]
Model = Annotated[str, typer.Argument(help="Checkpoint or artifact directory, or a hub name.", show_default=False)]
Train = Annotated[str | None, typer.Option("--train", help="File (CSV, TSV, JSONL, Parquet, .gz) or hub data set.")]
Validation = Annotated[str | None, typer.Option("--validation", help="Labelled examples that the gates judge on.")]
Test = Annotated[str | None, typer.Option("--test", help="Labelled examples that only the report is made on.")]
TextColumn = Annotated[str | None, typer.Option("--text", help="Column of the text; found by name if left out.")]
PairColumn = Annotated[str | None, typer.Option("--text-pair", help="Column of a second text.")]
LabelColumn = Annotated[str | None, typer.Option("--label", help="Column of the label; found by name if left out.")]
Out = Annotated[Path, typer.Option("--out", help="Directory to write; it must not hold anything else.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, for machines.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of everything that is drawn.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads for training; all cores if left out.")]
Cache = Annotated[Path, typer.Option("--cache", help="Where tokenised data and teacher outputs are kept.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other key of the recipe.")]


def leaves(settings: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield (dotted key, annotation, description) of every key that is not itself a group of keys."""
    for name, field in settings.model_fields.items():
        inner = _group(field.annotation)
        if inner is not None:
            yield from leaves(inner, f"{prefix}{name}.")
        else:
            default = "" if field.default is None or field.is_required() else f" [default: {_shown(field)}]"
            yield prefix + name, field.annotation, (field.description or "") + default


def with_settings(settings: type[BaseModel]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option per key of `settings`; those that were used reach it as `values` by dotted key."""
    table = {key.replace(".", "_"): (key, annotation, text) for key, annotation, text in leaves(settings)}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def wrapper(**arguments: Any) -> None:
            values = {}
            for name, (key, annotation, _) in table.items():
                given = arguments.pop(name)
                if given is not None:
                    values[key] = parse(given, annotation)
            command(**arguments, values=values)

        own = [
            parameter
            for name, parameter in inspect.signature(command, eval_str=True).parameters.items()
            if name != "values"
        ]
        made = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(key, kind, text))
            for name, (key, kind, text) in table.items()
        ]
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + made
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapper

    return decorate


def parse_assignments(pairs: list[str] | None) -> dict[str, Any]:
    """Return `KEY=VALUE` words as a mapping; values are read as YAML.

    Raises:
        BadInput: a word has no equals sign, or its value is not YAML.
    """
    import yaml

    values = {}
    for pair in pairs or []:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise BadInput(f"{pair!r} is not KEY=VALUE", where="--set", fix="For example: --set distill.epochs=2.")
        try:
            values[key.strip()] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise BadInput(f"{text!r} is not a YAML value", where=f"--set {key}") from None
    return values


def parse(given: Any, annotation: Any) -> Any:
    """Return an option's value for a settings field: lists are written with commas."""
    if isinstance(given, str) and _has_tuple(annotation):
        parts = [part.strip() for part in given.split(",") if part.strip()]
        numbers = [int(part) if re.fullmatch(r"-?\d+", part) else part for part in parts]
        return numbers[0] if len(numbers) == 1 and int in _choices(annotation) else numbers
    return given


def _option(key: str, annotation: Any, text: str) -> Any:
    flag = "--" + re.sub(r"[._]", "-", key)
    choices = _choices(annotation)
    kind: Any = str
    if bool in choices:
        return Annotated[bool | None, typer.Option(f"{flag}/--no-{flag[2:]}", help=text, show_default=False)]
    if not _has_tuple(annotation):
        kind = float if float in choices else int if int in choices else str
    return Annotated[Union[kind, None], typer.Option(flag, help=text, show_default=False)]  # noqa: UP007


def _choices(annotation: Any) -> list[Any]:
    """Return the plain types in an annotation, with Annotated and unions taken apart."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _choices(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [choice for part in get_args(annotation) for choice in _choices(part)]
    return [annotation]


def _has_tuple(annotation: Any) -> bool:
    return any(get_origin(choice) is tuple for choice in _choices(annotation))


def _group(annotation: Any) -> type[BaseModel] | None:
    for choice in _choices(annotation):
        if isinstance(choice, type) and issubclass(choice, BaseModel):
            return choice
    return None


def _shown(field: Any) -> str:
    default = field.default
    value = getattr(default, "value", default)
    return "none" if value == () else str(value)
