"""Commands that make something: `run`, and every stage on its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compress.cli.options import Common, Model, Set, parse_assignments, with_settings
from compress.settings import (
    DataSettings,
    DistillSettings,
    ExportSettings,
    PruneSettings,
    QuantizeSettings,
    TrainSettings,
    TrimSettings,
)
from compress.shipped import shipped_names

if TYPE_CHECKING:
    from compress.recipe import Recipe
    from compress.record import RunResult

app = typer.Typer()

SHIPPED = ", ".join(name for name in shipped_names() if not name.startswith("search"))
Values = dict[str, Any]
GATES = {
    "max_loss": "gates.default.accuracy.max_loss",
    "min_speedup": "gates.default.speed.min_speedup",
    "min_agreement": "gates.default.agreement.min_share",
}


@app.command(
    "run",
    epilog="Examples: `compress run demo` · `compress run recipe.yaml` · `compress run sst2 --teacher DIR "
    "--train fit.tsv.gz --validation holdout.tsv.gz --test dev.tsv.gz --set distill.epochs=2`",
)
@with_settings(data=DataSettings, common=Common)
def run_command(
    recipe: Annotated[str, typer.Argument(help=f"Recipe file, or the name of a shipped recipe: {SHIPPED}.")],
    *,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run's folder below --out.")] = None,
    assignments: Set = None,
    data: Values,
    common: Values,
) -> None:
    """Carry out a recipe: every stage, with gates between, and a report at the end.

    A second run goes on where the first stopped and redoes nothing whose inputs are unchanged.
    """
    from compress.pipeline import execute
    from compress.recipe import load_recipe

    named = {} if name is None else {"name": name}
    loaded = load_recipe(recipe, overrides_of(data, common) | named | parse_assignments(assignments))
    carry_out(execute, loaded, common)


@app.command("train", epilog="Example: `compress train bert-base-uncased --train train.csv --validation dev.csv`")
@with_settings(data=DataSettings, own=TrainSettings, common=Common)
def train_command(
    model: Annotated[
        str | None, typer.Argument(help="Checkpoint directory or hub name; none with --architecture-layers.")
    ] = None,
    *,
    data: Values,
    own: Values,
    common: Values,
) -> None:
    """Fine-tune a checkpoint, or train a new network (`--architecture-...`), into a teacher."""
    _one("train", None, own, data, {"teacher": [model] if model else []} | common)


@app.command("distill", epilog="Example: `compress distill --teacher DIR --train texts.csv --validation dev.csv`")
@with_settings(data=DataSettings, own=DistillSettings, common=Common)
def distill_command(*, data: Values, own: Values, common: Values) -> None:
    """Build a student out of the teacher and train it on the teacher's outputs; unlabelled text is enough."""
    _one("distill", None, own, data, common)


@app.command(
    "prune", epilog="Example: `compress prune student --teacher DIR --train t.csv --validation v.csv --speedup 2`"
)
@with_settings(data=DataSettings, own=PruneSettings, common=Common)
def prune_command(model: Model, *, data: Values, own: Values, common: Values) -> None:
    """Cut out heads and FFN neurons under a target, then recover by distillation from the teacher."""
    _one("prune", model, own, data, common)


@app.command("trim", epilog="Example: `compress trim pruned --teacher DIR --train t.csv --validation v.csv`")
@with_settings(data=DataSettings, own=TrimSettings, common=Common)
def trim_command(model: Model, *, data: Values, own: Values, common: Values) -> None:
    """Drop the pieces of the vocabulary that the training texts do without, unused positions and token types."""
    _one("trim", model, own, data, common)


@app.command("quantize", epilog="Example: `compress quantize pruned --teacher DIR --train t.csv --validation v.csv`")
@with_settings(data=DataSettings, own=QuantizeSettings, common=Common)
def quantize_command(model: Model, *, data: Values, own: Values, common: Values) -> None:
    """Put weights, activations and the embedding table into int8."""
    _one("quantize", model, own, data, common)


@app.command("export", epilog="Example: `compress export quantized --validation v.csv --out bundle`")
@with_settings(data=DataSettings, own=ExportSettings, common=Common)
def export_command(model: Model, *, data: Values, own: Values, common: Values) -> None:
    """Write the ONNX bundle that a device gets, checked against PyTorch."""
    _one("export", model, own, data, common)


def carry_out(work: Callable[..., RunResult], recipe: Recipe, common: Values) -> None:
    """Do what the recipe says, `work` being the whole run or a search, tell of it, and fail where a gate did."""
    from compress.cli.render import LiveProgress, print_summary
    from compress.pipeline import require_passed
    from compress.report.files import write_report

    out = Path(common.get("out", "runs"))
    with LiveProgress(quiet=bool(common.get("json"))) as progress:
        result = work(recipe, out=out, cache=cache_of(common), progress=progress, on_stage=progress.stage_done)
    report = write_report(result, out / recipe.name)
    if common.get("json"):
        typer.echo(report.model_dump_json(indent=1))
    else:
        print_summary(report, out / recipe.name)
    require_passed(result)


def overrides_of(data: Values, common: Values) -> Values:
    """Return what the options say, by the recipe's dotted keys."""
    values = {f"data.{key}": value for key, value in data.items()}
    values |= {key: common[key] for key in ("task", "seed", "threads") if common.get(key) is not None}
    teachers = common.get("teacher") or []
    values |= {"teacher": teachers[0]} if teachers else {}
    values |= {"ensemble": teachers[1:]} if teachers[1:] else {}
    return values | {key: common[name] for name, key in GATES.items() if name in common}


def cache_of(common: Values) -> Path:
    """Return where to keep what can be computed again."""
    default: Path = Common.model_fields["cache"].default
    return Path(common.get("cache") or default).expanduser()


def _one(stage: str, model: str | None, own: Values, data: Values, common: Mapping[str, Any]) -> None:
    """Carry out one stage; without gates given there are none."""
    from compress.cli.render import LiveProgress, print_sealed, print_summary
    from compress.pipeline import require_passed
    from compress.recipe import make_recipe, merged
    from compress.report.data import make_report
    from compress.single import execute_stage

    plain: Values = {"name": stage, "teacher": model, stage: {}, "gates": {"default": {}}}
    values = overrides_of(data, dict(common)) | {f"{stage}.{key}": value for key, value in own.items()}
    recipe = make_recipe(merged(plain, values), where=f"compress {stage}")
    out = Path(common.get("out", stage))
    with LiveProgress(quiet=bool(common.get("json"))) as progress:
        done = execute_stage(stage, recipe, model=model, out=out, cache=cache_of(dict(common)), progress=progress)
    if done is None:
        return
    record, result = done
    if common.get("json"):
        typer.echo((record if result is None else make_report(result)).model_dump_json(indent=1))
    elif result is None:
        print_sealed(record, out)
    else:
        print_summary(make_report(result), out)
    if result is not None:
        require_passed(result)
