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
from pydantic import BaseModel, BeforeValidator, Field

from compress.settings import Settings
from models.errors import BadInput


class Basic(Settings):
    """Options of every command that makes something."""

    teacher: list[str] | None = Field(
        None,
        description="Checkpoint directory, hub name (org/name), or `standard-library`. The first is compressed and "
        "compared with; students learn from the mean of all.",
    )
    task: str | None = Field(
        None, description="What the model does, such as token-classification; what the teacher's head does if left out."
    )
    out: Path | None = Field(None, description="Directory to write; it must not hold anything else.")
    seed: int | None = Field(None, description="Seed of everything that is drawn.")
    threads: int | None = Field(None, description="Threads for training; all cores if left out.")
    cache: Path = Field(Path("~/.cache/compress"), description="Where encoded data and teacher outputs are kept.")
    json_output: bool = Field(False, description="Print one JSON object on stdout, for machines.", alias="json")


class Common(Basic):
    """Options that every stage's command has besides the stage's own."""

    max_loss: float | None = Field(None, description="Accuracy gate: allowed loss against the teacher, in points.")
    min_speedup: float | None = Field(None, description="Speed gate: least speed-up over the teacher.")
    min_agreement: float | None = Field(
        None, description="Agreement gate: least share of --foreign texts whose answer trim leaves as it was."
    )


class Look(Settings):
    """Options of the commands that measure a model."""

    data: str | None = Field(None, description="Labelled file or hub data set (its test split).")
    teacher: str | None = Field(None, description="Compare with this checkpoint, example by example.")
    text: str | None = Field(None, description="Column of the text or the image; found by name if left out.")
    text_pair: str | None = Field(None, description="Column of a second text.")
    label: str | None = Field(None, description="Column of the label; found by name if left out.")
    threads: int = Field(1, description="Threads that ONNX Runtime may use.")
    rounds: int = Field(20, description="Interleaved rounds of timing.")
    cache: Path = Field(Path("~/.cache/compress"), description="Where encoded data is kept.")
    json_output: bool = Field(False, description="Print one JSON object on stdout, for machines.", alias="json")


class Written(Settings):
    """Options of what a bundle writes; those that are left out are the bundle's own."""

    beams: int | None = Field(None, description="Texts that are weighed at once (beam search); 1 is greedy.")
    max_tokens: int | None = Field(None, description="Most tokens that are written.")
    length_penalty: float | None = Field(
        None, description="Power of the length that a text's score is divided by: above 1 longer texts win."
    )
    temperature: float | None = Field(None, description="Draw words, by logits divided by this, in place of weighing.")
    top_k: int | None = Field(None, description="Draw words, of so many likeliest.")
    top_p: float | None = Field(None, description="Draw words, of the likeliest that together have this share.")
    seed: int | None = Field(None, description="Seed of what is drawn.")
    stream: bool | None = Field(None, description="Print every word as soon as it is known; with one beam.")


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, for machines.")]
Model = Annotated[str, typer.Argument(help="Checkpoint or artifact directory, or a hub name.", show_default=False)]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other key of the recipe.")]


def leaves(settings: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield (dotted key, annotation, description) of every key that is not itself a group of keys."""
    for name, field in settings.model_fields.items():
        inner = _group(field.annotation)
        if inner is not None:
            yield from leaves(inner, f"{prefix}{name}.")
        elif get_origin(field.annotation) is not dict:  # a mapping is written in the recipe
            default = "" if field.default is None or field.is_required() else f" [default: {_shown(field)}]"
            with_unit = any(isinstance(rule, BeforeValidator) for rule in field.metadata)  # such as 0.6ms
            kind = str if with_unit else field.annotation
            yield prefix + (field.alias or name), kind, (field.description or "") + default


def with_settings(**groups: type[BaseModel]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option per key of each class; those that were used reach it as a mapping per class."""
    table = {
        key.replace(".", "_"): (group, key, annotation, text)
        for group, settings in groups.items()
        for key, annotation, text in leaves(settings)
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def wrapper(**arguments: Any) -> None:
            values: dict[str, dict[str, Any]] = {group: {} for group in groups}
            for name, (group, key, annotation, _) in table.items():
                given = arguments.pop(name)
                if given not in (None, []):
                    values[group][key] = parse(given, annotation)
            command(**arguments, **values)

        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in inspect.signature(command, eval_str=True).parameters.items()
            if name not in groups
        ]
        made = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(key, kind, text))
            for name, (_, key, kind, text) in table.items()
        ]
        wrapper.__signature__ = inspect.Signature(own + made)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in own + made}
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
        words = flag if flag == "--json" else f"{flag}/--no-{flag[2:]}"
        return Annotated[bool | None, typer.Option(words, help=text, show_default=False)]
    if any(get_origin(choice) is list for choice in choices):
        return Annotated[list[str] | None, typer.Option(flag, help=text, show_default=False)]
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
