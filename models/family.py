"""What a family of checkpoints is: a few settings and a table of names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from models.kinds import Activation, Reads
from models.shape import CLASSIFICATION, HeadShape, ImageShape, ModelShape
from models.weights import Layout, Names, Row

Config = Mapping[str, Any]
TOKENS = "token-classification"
QUESTIONS = "question-answering"
IMAGES = "image-classification"
OBJECTS = "object-detection"
# Whose classes of `transformers` are called otherwise than those of heads that answer texts, or tokens.
ARCHITECTURES = {
    QUESTIONS: "ForQuestionAnswering",
    IMAGES: "ForImageClassification",
    OBJECTS: "ForObjectDetection",
}
ANSWERS = Row("^qa_outputs.{p}", "head.output.{p}", optional=True, tokens=True, task=QUESTIONS)
PROBLEMS = {"regression": "text-regression", "multi_label_classification": "multi-label-classification"}


@dataclass(frozen=True, slots=True)
class Family:
    """A checkpoint format: Hugging Face `model_types` that it reads, and the way from config to shape and back.

    `shape_of` raises BadInput for a setting that the network does not have. `prefix` stands before the encoder's names
    when a model with a head or an output is written. `layout_of` says what a config has to say about names, `axes_of`
    gives, by our names, the axes of the weights that have others there than here, and `form_of` which rows are written.
    `position_tables` are their names of computed positions that the format holds nevertheless. `loaded_as` is the
    `model_type` and class of another family, by which transformers.js runs a graph of this one where it lacks it.
    `new_head` gives the form that a head with labels has in the family, for the one that a task asks for and a model of
    this shape.
    """

    name: str
    model_types: tuple[str, ...]
    shape_of: Callable[[Config], ModelShape]
    config_of: Callable[[ModelShape], dict[str, Any]]
    names: Names
    prefix: str
    layout_of: Callable[[Config], Layout] = lambda config: Layout()
    axes_of: Callable[[ModelShape], Mapping[str, tuple[int, ...]]] = lambda shape: {}
    new_head: Callable[[HeadShape, ModelShape], HeadShape] = lambda head, shape: head
    form_of: Callable[[ModelShape], str | None] = lambda shape: None
    position_tables: tuple[str, ...] = ()
    loaded_as: tuple[str, str] | None = None


def labels_of(config: Config) -> tuple[str, ...]:
    """Return the class names of a Hugging Face config, in order of their numbers.

    A config that names none means `num_labels` of them, or two: LABEL_0, LABEL_1, as `transformers` has it.
    """
    names = config.get("id2label")
    if not isinstance(names, Mapping):
        return tuple(f"LABEL_{number}" for number in range(int(config.get("num_labels", 2))))
    return tuple(str(names[key]) for key in sorted(names, key=int))


def task_of(config: Config) -> str:
    """Return what the head of a Hugging Face config does; one output without a word about it is a regression."""
    named = PROBLEMS.get(str(config.get("problem_type")))
    if named is None and config.get("problem_type") is None and len(labels_of(config)) == 1:
        return PROBLEMS["regression"]
    return named or CLASSIFICATION


def head_keys(head: HeadShape) -> dict[str, Any]:
    """Return `id2label`, `label2id` and `problem_type` as Hugging Face writes them; nothing without labels."""
    if not head.labels:
        return {}
    problems = [problem for problem, task in PROBLEMS.items() if task == head.task]
    return {
        "id2label": {str(number): label for number, label in enumerate(head.labels)},
        "label2id": {label: number for number, label in enumerate(head.labels)},
        "num_labels": len(head.labels),
        **({"problem_type": problems[0]} if problems else {}),
    }


def image_keys(image: ImageShape) -> dict[str, Any]:
    """Return the sizes of images as Hugging Face writes them."""
    return {
        "image_size": image.height if image.height == image.width else [image.height, image.width],
        "patch_size": image.patch,
        "num_channels": image.channels,
    }


def head_of(config: Config, *, activation: Activation, dropout: float, token_dropout: float) -> HeadShape | None:
    """Return the head that the config's architecture ends in, with the dropout of its kind; None for a bare encoder."""
    names = [str(name) for name in config.get("architectures") or ()]
    labels = labels_of(config)
    if any(name.endswith("ForQuestionAnswering") for name in names):
        return HeadShape(("start", "end"), dropout=token_dropout, task=QUESTIONS, reads=Reads.EACH)
    if any(name.endswith("ForTokenClassification") for name in names):
        return HeadShape(labels, dropout=token_dropout, task=TOKENS, reads=Reads.EACH)
    if any(name.endswith("ForSequenceClassification") for name in names):
        return HeadShape(labels, activation, dropout, task_of(config))
    return None


def architecture_of(shape: ModelShape, name: str) -> str:
    """Return the class of `transformers` that reads a model of this shape, `name` being the family's."""
    if shape.head is None or not shape.head.labels:
        return f"{name}Model"
    other = "ForTokenClassification" if shape.head.tokens else "ForSequenceClassification"
    return name + ARCHITECTURES.get(shape.head.task, other)
