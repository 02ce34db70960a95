"""Commands that make something: `run`, and every stage on its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compress.cli.options import (
    DEFAULT_CACHE,
    Cache,
    Json,
    LabelColumn,
    Model,
    Out,
    PairColumn,
    Seed,
    Set,
    Teacher,
    Test,
    TextColumn,
    Threads,
    Train,
    Validation,
    parse_assignments,
    with_settings,
)
from compress.settings import DistillSettings, ExportSettings, PruneSettings, QuantizeSettings, TrainSettings

if TYPE_CHECKING:
    from compress.recipe import Recipe
    from compress.record import RunResult

app = typer.Typer()

MaxLoss = Annotated[
    float | None, typer.Option("--max-loss", min=0, help="Accuracy gate: allowed loss in points.", show_default=False)
]
MinSpeedup = Annotated[
    float | None, typer.Option("--min-speedup", min=0, help="Speed gate: least speed-up over the teacher.")
]


@app.command(
    "run",
    epilog="Examples: `compress run demo` · `compress run recipe.yaml` · `compress run sst2 --teacher DIR "
    "--train fit.tsv.gz --validation holdout.tsv.gz --test dev.tsv.gz --set distill.epochs=2`",
)
def run_command(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped recipe (demo, sst2).")],
    *,
    teacher: Teacher = None,
    train: Train = None,
    validation: Validation = None,
    test: Test = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run's folder below --out.")] = None,
    out: Out = Path("runs"),
    assignments: Set = None,
    seed: Seed = None,
    threads: Threads = None,
    cache: Cache = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Carry out a recipe: every stage, with gates between, and a report at the end.

    A second run goes on where the first stopped and redoes nothing whose inputs are unchanged.
    """
    from compress.recipe import load_recipe

    given = {
        "teacher": teacher,
        "name": name,
        "data.train": train,
        "data.validation": validation,
        "data.test": test,
        "seed": seed,
        "threads": threads,
    }
    overrides = {key: value for key, value in given.items() if value is not None} | parse_assignments(assignments)
    _carry_out(load_recipe(recipe, overrides), out=out, cache=cache, as_json=as_json)


@app.command("train", epilog="Example: `compress train bert-base-uncased --train train.csv --validation dev.csv`")
@with_settings(TrainSettings)
def train_command(
    model: Annotated[
        str | None, typer.Argument(help="Checkpoint directory or hub name; none with --architecture-layers.")
    ] = None,
    *,
    values: dict[str, Any],
    train: Train = None,
    validation: Validation = None,
    test: Test = None,
    text: TextColumn = None,
    text_pair: PairColumn = None,
    label: LabelColumn = None,
    out: Out = Path("teacher"),
    seed: Seed = None,
    threads: Threads = None,
    cache: Cache = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Fine-tune a checkpoint, or train a new network (`--architecture-...`), into a teacher."""
    recipe = _recipe("train", model, values, _data(train, validation, test, text, text_pair, label), seed, threads)
    _carry_out_stage("train", recipe, model=None, out=out, cache=cache, as_json=as_json)


@app.command("distill", epilog="Example: `compress distill --teacher DIR --train texts.csv --validation dev.csv`")
@with_settings(DistillSettings)
def distill_command(
    *,
    values: dict[str, Any],
    teacher: Teacher = None,
    train: Train = None,
    validation: Validation = None,
    test: Test = None,
    text: TextColumn = None,
    text_pair: PairColumn = None,
    label: LabelColumn = None,
    max_loss: MaxLoss = None,
    min_speedup: MinSpeedup = None,
    out: Out = Path("student"),
    seed: Seed = None,
    threads: Threads = None,
    cache: Cache = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Build a student out of the teacher and train it on the teacher's outputs; unlabelled text is enough."""
    data = _data(train, validation, test, text, text_pair, label)
    recipe = _recipe("distill", teacher, values, data | _gates(max_loss, min_speedup), seed, threads)
    _carry_out_stage("distill", recipe, model=None, out=out, cache=cache, as_json=as_json)


@app.command(
    "prune", epilog="Example: `compress prune student --teacher DIR --train t.csv --validation v.csv --speedup 2`"
)
@with_settings(PruneSettings)
def prune_command(
    model: Model,
    *,
    values: dict[str, Any],
    teacher: Teacher = None,
    train: Train = None,
    validation: Validation = None,
    test: Test = None,
    text: TextColumn = None,
    text_pair: PairColumn = None,
    label: LabelColumn = None,
    max_loss: MaxLoss = None,
    min_speedup: MinSpeedup = None,
    out: Out = Path("pruned"),
    seed: Seed = None,
    threads: Threads = None,
    cache: Cache = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Cut out heads and FFN neurons under a target, then recover by distillation from the teacher."""
    data = _data(train, validation, test, text, text_pair, label)
    recipe = _recipe("prune", teacher or model, values, data | _gates(max_loss, min_speedup), seed, threads)
    _carry_out_stage("prune", recipe, model=model, out=out, cache=cache, as_json=as_json)


@app.command("quantize", epilog="Example: `compress quantize pruned --teacher DIR --train t.csv --validation v.csv`")
@with_settings(QuantizeSettings)
def quantize_command(
    model: Model,
    *,
    values: dict[str, Any],
    teacher: Teacher = None,
    train: Train = None,
    validation: Validation = None,
    test: Test = None,
    text: TextColumn = None,
    text_pair: PairColumn = None,
    label: LabelColumn = None,
    max_loss: MaxLoss = None,
    min_speedup: MinSpeedup = None,
    out: Out = Path("quantized"),
    seed: Seed = None,
    threads: Threads = None,
    cache: Cache = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Put weights, activations and the embedding table into int8."""
    data = _data(train, validation, test, text, text_pair, label)
    recipe = _recipe("quantize", teacher or model, values, data | _gates(max_loss, min_speedup), seed, threads)
    _carry_out_stage("quantize", recipe, model=model, out=out, cache=cache, as_json=as_json)


@app.command("export", epilog="Example: `compress export quantized --validation v.csv --out bundle`")
@with_settings(ExportSettings)
def export_command(
    model: Model,
    *,
    values: dict[str, Any],
    teacher: Teacher = None,
    validation: Validation = None,
    test: Test = None,
    text: TextColumn = None,
    text_pair: PairColumn = None,
    label: LabelColumn = None,
    max_loss: MaxLoss = None,
    min_speedup: MinSpeedup = None,
    out: Out = Path("bundle"),
    seed: Seed = None,
    threads: Threads = None,
    cache: Cache = DEFAULT_CACHE,
    as_json: Json = False,
) -> None:
    """Write the ONNX bundle that a device gets, checked against PyTorch."""
    data = _data(None, validation, test, text, text_pair, label)
    recipe = _recipe("export", teacher or model, values, data | _gates(max_loss, min_speedup), seed, threads)
    _carry_out_stage("export", recipe, model=model, out=out, cache=cache, as_json=as_json)


def _data(
    train: str | None,
    validation: str | None,
    test: str | None,
    text: str | None,
    text_pair: str | None,
    label: str | None,
) -> dict[str, Any]:
    given = {"train": train, "validation": validation, "test": test}
    columns = {"text": text, "text_pair": text_pair, "label": label}
    return {f"data.{key}": value for key, value in (given | columns).items() if value is not None}


def _gates(max_loss: float | None, min_speedup: float | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if max_loss is not None:
        values["gates.default.accuracy.max_loss"] = max_loss
    if min_speedup is not None:
        values["gates.default.speed.min_speedup"] = min_speedup
    return values


def _recipe(
    stage: str,
    teacher: str | None,
    values: dict[str, Any],
    others: dict[str, Any],
    seed: int | None,
    threads: int | None,
) -> Recipe:
    """Return a recipe of one stage; without gates given there are none."""
    from compress.recipe import make_recipe, merged

    plain: dict[str, Any] = {"teacher": teacher, stage: {}, "gates": {"default": {}}}
    own = {f"{stage}.{key}": value for key, value in values.items()}
    rest = {key: value for key, value in (("seed", seed), ("threads", threads)) if value is not None}
    return make_recipe(merged(plain, own | others | rest), where=f"compress {stage}")


def _carry_out(recipe: Recipe, *, out: Path, cache: Path, as_json: bool) -> None:
    from compress.cli.render import LiveProgress, print_summary
    from compress.pipeline import execute, require_passed

    with LiveProgress(quiet=as_json) as progress:
        result = execute(recipe, out=out, cache=cache.expanduser(), progress=progress, on_stage=progress.stage_done)
    _report(result, out / recipe.name, as_json=as_json)
    if not as_json:
        print_summary(result, out / recipe.name)
    require_passed(result)


def _carry_out_stage(stage: str, recipe: Recipe, *, model: str | None, out: Path, cache: Path, as_json: bool) -> None:
    from compress.cli.render import LiveProgress, print_sealed, print_summary
    from compress.pipeline import require_passed
    from compress.report.data import make_report
    from compress.single import execute_stage

    with LiveProgress(quiet=as_json) as progress:
        done = execute_stage(stage, recipe, model=model, out=out, cache=cache.expanduser(), progress=progress)
    if done is None:
        return
    record, result = done
    if as_json:
        typer.echo((record if result is None else make_report(result)).model_dump_json(indent=1))
    elif result is None:
        print_sealed(record, out)
    else:
        print_summary(result, out)
    if result is not None:
        require_passed(result)


def _report(result: RunResult, directory: Path, *, as_json: bool) -> None:
    from compress.report.data import make_report
    from compress.report.html import render_html
    from models.files import write_text

    report = make_report(result)
    text = report.model_dump_json(indent=1)
    write_text(directory / "report.json", text + "\n")
    write_text(directory / "report.html", render_html(report))
    if as_json:
        typer.echo(text)
