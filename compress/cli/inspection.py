"""Commands that look: inspect, evaluate, bench, verify, predict, report; `convert`, which writes what others read, and
`init`, which writes a recipe.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from compress.cli.options import Json, Look, Model, Written, with_settings

app = typer.Typer()

BundleArgument = Annotated[Path, typer.Argument(help="Bundle directory.", show_default=False)]


@app.command("inspect", epilog="Example: `compress inspect runs/sst2/2-prune`")
def inspect_command(model: Model, *, as_json: Json = False) -> None:
    """Show what a checkpoint, artifact or bundle is: sizes per layer, parameters, labels, lineage."""
    from compress.inspecting import inspect_model

    _tell(inspect_model(model), as_json=as_json)


@app.command("convert", epilog="Example: `compress convert runs/sst2/1-distill --out student`")
def convert_command(
    model: Model,
    *,
    out: Annotated[Path, typer.Option("--out", help="New directory for it.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Write a checkpoint or an artifact of a run as `transformers` reads it, where its format can say the shape."""
    from compress.converting import convert_model

    _tell(convert_model(model, out), as_json=as_json)


@app.command("evaluate", epilog="Example: `compress evaluate runs/sst2/bundle --data dev.tsv --teacher DIR`")
@with_settings(look=Look)
def evaluate_command(model: Model, *, look: dict[str, Any]) -> None:
    """Measure accuracy with its interval, and with --teacher the paired difference."""
    from compress.inspecting import evaluate_model

    _measure(evaluate_model, model, look)


@app.command("bench", epilog="Example: `compress bench runs/sst2/bundle --teacher DIR --data dev.tsv --threads 2`")
@with_settings(look=Look)
def bench_command(
    model: Model,
    *,
    device_report: Annotated[
        bool,
        typer.Option("--device-report", help="Instead: one JSON of what a bundle is and costs on this device."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="File for the device report; standard output if left out.")
    ] = None,
    look: dict[str, Any],
) -> None:
    """Time ONNX Runtime at batch 1 on the data's real lengths, beside the teacher (or itself, as a control)."""
    from models.errors import BadInput

    if device_report:
        _tell_of_device(Path(model), out, look)
        return
    if out is not None:
        raise BadInput("only a device report is written to a file", where="--out", fix="Add --device-report.")
    from compress.inspecting import bench_model

    _measure(bench_model, model, look)


def _tell_of_device(bundle: Path, out: Path | None, look: dict[str, Any]) -> None:
    from compress.cli.render import LiveProgress
    from compress.device import device_report
    from models.errors import BadInput
    from models.files import write_text

    foreign = set(look) - {"threads", "rounds", "json"}
    if foreign:
        where = f"--{min(foreign).replace('_', '-')}"
        raise BadInput("a device report is made of the bundle alone", where=where, fix="Leave it out.")
    settings = Look.model_validate(look)
    with LiveProgress(quiet=settings.json_output) as progress:
        report = device_report(bundle, threads=settings.threads, passes=settings.rounds, progress=progress)
    text = report.model_dump_json(indent=1)
    if out is None:
        typer.echo(text)
        return
    write_text(out, text + "\n")
    if settings.json_output:
        typer.echo(text)


@app.command("verify", epilog="Example: `compress verify runs/sst2/bundle`")
def verify_command(bundle: BundleArgument, *, as_json: Json = False) -> None:
    """Check a bundle: every file's digest, the graph, its inputs and outputs, the golden outputs here, and the time."""
    from compress.device import verify_here

    _tell(verify_here(bundle), as_json=as_json)


@app.command("predict", epilog="Example: `compress predict runs/demo/bundle 'def loads(s): ...'`")
@with_settings(written=Written)
def predict_command(
    bundle: BundleArgument,
    texts: Annotated[list[str], typer.Argument(help="Texts to answer, or files of images.", show_default=False)],
    *,
    pairs: Annotated[
        list[str] | None,
        typer.Option("--pair", help="Second text, as a question's context: one for all texts, or one for each."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Probability from which on an object or one of several labels is named."),
    ] = None,
    as_json: Json = False,
    written: dict[str, Any],
) -> None:
    """Answer texts or images with a bundle, as a device would; one that writes gives what it writes."""
    from export.bundle import Bundle
    from models.errors import BadInput
    from models.task import THRESHOLD

    opened = Bundle.open(bundle)
    asked = Written.model_validate(written)
    if opened.shape.output is not None:
        _write(bundle, texts, asked, as_json=as_json)
        return
    if asked.model_fields_set:
        option = min(asked.model_fields_set).replace("_", "-")
        raise BadInput("the bundle answers, and writes nothing", where=f"--{option}", fix="Leave it out.")
    seconds = pairs * len(texts) if pairs is not None and len(pairs) == 1 else pairs
    least = THRESHOLD if threshold is None else threshold
    answers = opened.predict(texts, seconds, threshold=least)
    if as_json:
        _print([dict(answer.values) for answer in answers])
        return
    for answer in answers:
        typer.echo(answer.text)


def _write(bundle: Path, texts: list[str], asked: Written, *, as_json: bool) -> None:
    """Print what a bundle writes for each text."""
    from dataclasses import replace

    from export.generator import Generator
    from models.generation_settings import Sampling

    generator = Generator.open(bundle)
    bounds = asked.model_dump(include={"beams", "max_tokens", "length_penalty"}, exclude_none=True)
    drawn = asked.model_dump(include={"temperature", "top_k", "top_p"}, exclude_none=True)
    if drawn or asked.stream:
        bounds = {"beams": 1, **bounds}
    if drawn:
        bounds["sampling"] = Sampling(**drawn)
    settings, seed = replace(generator.settings, **bounds), asked.seed or 0
    if asked.stream and not as_json:
        for text in texts:
            for piece in generator.stream(text, settings, seed=seed):
                typer.echo(piece, nl=False)
            typer.echo()
        return
    said = generator.write(texts, settings, seed=seed)
    if as_json:
        _print([{"text": text} for text in said])
    else:
        typer.echo("\n".join(said))


@app.command("report", epilog="Example: `compress report runs/sst2 --add-device phone.json`")
def report_command(
    run: Annotated[Path, typer.Argument(help="Directory of a run.", show_default=False)],
    *,
    add_device: Annotated[
        list[Path] | None,
        typer.Option("--add-device", help="Device report of the run's bundle, to be kept with the run; repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write report.html and report.json of a run again from what was measured, here and on devices."""
    from compress.cli.render import print_summary
    from compress.ledger import Ledger
    from compress.report.files import add_devices, write_report

    result = Ledger(run).result()
    add_devices(run, add_device or [])
    report = write_report(result, run)
    if as_json:
        typer.echo(report.model_dump_json(indent=1))
    else:
        print_summary(report, run)


@app.command("init", epilog="Example: `compress init --teacher DIR --train t.csv --validation v.csv --out recipe.yaml`")
def init_command(
    *,
    teacher: Annotated[str | None, typer.Option("--teacher", help="Checkpoint directory or hub name.")] = None,
    train: Annotated[str | None, typer.Option("--train", help="Examples to learn from.")] = None,
    validation: Annotated[str | None, typer.Option("--validation", help="Labelled examples to judge on.")] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the run.")] = "run",
    out: Annotated[Path, typer.Option("--out", help="Recipe file to write.")] = Path("recipe.yaml"),
    as_json: Json = False,
) -> None:
    """Write a commented recipe for a checkpoint and a data set, checked against both."""
    from compress.starter import write_starter

    cache = Path("~/.cache/compress").expanduser()
    facts = write_starter(out, teacher=teacher, train=train, validation=validation, name=name, cache=cache)
    if as_json:
        _print(facts)
    else:
        typer.echo(f"Wrote {out}. Next: compress run {out}")


def _measure(measure: Callable[..., dict[str, Any]], model: str, look: dict[str, Any]) -> None:
    from compress.cli.render import LiveProgress

    settings = Look.model_validate(look)
    with LiveProgress(quiet=settings.json_output) as progress:
        facts = measure(model, settings, progress=progress)
    _tell(facts, as_json=settings.json_output)


def _tell(facts: dict[str, Any], *, as_json: bool) -> None:
    from compress.cli.render import print_facts

    if as_json:
        _print(facts)
    else:
        print_facts(facts)


def _print(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))
