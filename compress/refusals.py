"""What a recipe asks for and its model cannot do, said before anything is computed."""

from __future__ import annotations

from pathlib import Path

from compress.quantization.schemes import form_in_blocks
from compress.recipe import Recipe, of_words_alone
from compress.settings import ExportSettings
from compress.text_in import check_text_in
from export.page import prepare_page
from export.target import TARGETS
from models.checkpoint import Checkpoint
from models.errors import BadInput, Unsupported
from models.reading import tokenizer_of
from models.targets import Writes
from models.task import Task


def check_words(recipe: Recipe, base: Checkpoint) -> None:
    """Raise BadInput where a recipe asks for what only words have, and the model reads something else."""
    for name in of_words_alone(recipe):
        tokenizer_of(base.reader, wanted_by=name)


def check_written(recipe: Recipe, task: Task) -> None:
    """Raise Unsupported where a recipe asks for what is done to models that write nothing alone, and BadInput where it
    asks for texts without what is to be written for them, or for blocks of weights that nothing writes with or that its
    target does not multiply.
    """
    if recipe.quantize is not None and form_in_blocks(recipe.quantize) is not None:
        _check_blocks(recipe, recipe.quantize.weights, task)
    if task.writes is Writes.NOTHING:
        return
    unknown = {
        "trim.recovery": recipe.trim and recipe.trim.recovery.epochs,
        "quantize.compensate": recipe.quantize and recipe.quantize.compensate,
        "distill.hidden_size": recipe.distill and recipe.distill.hidden_size,
        "distill.norm": recipe.distill and recipe.distill.norm,
    }
    for where, asked in unknown.items():
        if asked:
            raise Unsupported("is for models that write nothing", where=where, fix="Leave it out.")
    if recipe.data.foreign is not None and task.writes is Writes.ON:
        raise BadInput(
            "what a text goes on with is no answer of which could be said that it is the same",
            where="data.foreign",
            fix="Leave it out.",
        )
    lessons = {"distill": recipe.distill, "prune.recovery": recipe.prune and recipe.prune.recovery}
    wanted = {f"{name}.copies": bool(settings and settings.copies) for name, settings in lessons.items()}
    for where, asked in (wanted | {"data.extra": recipe.data.extra is not None}).items():
        if asked:
            raise BadInput("of these texts nothing says what to write", where=where, fix="Leave it out.")


def _check_blocks(recipe: Recipe, weights: str, task: Task) -> None:
    target = TARGETS[recipe.export.target] if recipe.export is not None else None
    if task.writes is Writes.NOTHING:
        what = f"{weights} is for models that write, and those of {task.name} do not"
        raise BadInput(what, where="quantize.weights", fix="Give int4 or int8.")
    if target is not None and not target.blocks:
        what = f"the target {target.name} multiplies no weights in blocks"
        raise BadInput(what, where="quantize.weights", fix="Give int4 or int8, or export for cpu.")


def check_export(settings: ExportSettings, base: Checkpoint, task: Task, *, paired: bool, cache: Path) -> None:
    """Check that the bundle can be written; `paired` says whether a row has two texts.

    Raises:
        BadInput, BadFile: no page for browsers is made for such a model, or what it runs on is missing.
        Unsupported: the tokenizer has no form in a graph, or what runs it is missing.
    """
    target = TARGETS[settings.target]
    if target.page:
        prepare_page(base.shape, task, cache)
    if settings.text_in:
        check_text_in(base, target, paired=paired)
