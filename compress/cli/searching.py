"""The command that looks for the best point between right and fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from compress.cli.options import Basic, Set, parse_assignments, with_settings
from compress.cli.stages import carry_out, overrides_of
from compress.goal_settings import SearchSettings
from compress.settings import DataSettings

app = typer.Typer()

Values = dict[str, Any]
WITHOUT_RETRAINING = {"distill": None, "prune.round_epochs": 0, "prune.recovery.epochs": 0}


@app.command(
    "search",
    epilog="Examples: `compress search --teacher DIR --train texts.csv --validation held-out.csv --max-drop 1.0` · "
    "`compress search --teacher DIR --train texts.csv --validation held-out.csv --max-latency 0.6ms --max-size 8MB` · "
    "`compress search --teacher DIR --train texts.csv --validation held-out.csv --no-retraining`",
)
@with_settings(data=DataSettings, own=SearchSettings, common=Basic)
def search_command(
    recipe: Annotated[
        str | None,
        typer.Argument(help="Recipe file, or the name of a shipped recipe: search (default), search-no-retraining."),
    ] = None,
    *,
    retraining: Annotated[
        bool,
        typer.Option(
            "--retraining/--no-retraining",
            help="Train every level on the teacher's outputs; without, minutes are enough and labels are not needed.",
        ),
    ] = True,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run's folder below --out.")] = None,
    assignments: Set = None,
    data: Values,
    own: Values,
    common: Values,
) -> None:
    """Find the fastest model that is still right, or the most right one that is fast and small enough.

    One gradual run gives a family of models, each pruned from the one before. The report draws them all, every one has
    its bundle, and the best is handed over. A search that was stopped goes on. Of a model that reads images, a shipped
    recipe leaves out what only words have.
    """
    from compress.cli.render import print_left_out
    from compress.frontier import search
    from compress.recipe import WORDS_ALONE, load_recipe, without_words
    from compress.shipped import shipped_names
    from compress.sources import reads_images

    values = {} if retraining else dict(WITHOUT_RETRAINING)
    values |= overrides_of(data, common) | {f"search.{key}": value for key, value in own.items()}
    values |= ({} if name is None else {"name": name}) | parse_assignments(assignments)
    source = recipe or ("search" if retraining else "search-no-retraining")
    loaded = load_recipe(source, values)
    if source in shipped_names() and not Path(source).is_file() and reads_images(loaded):
        left = without_words(loaded, values)
        loaded = load_recipe(source, {**left, **values})
        print_left_out(source, [key for key in left if key in WORDS_ALONE])
    carry_out(search, loaded, common)
