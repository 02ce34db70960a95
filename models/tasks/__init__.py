"""The tasks. A new one is a file here and a row in TASKS."""

from __future__ import annotations

from models.errors import Unsupported, nearest
from models.task import Task
from models.tasks.image_classification import ImageClassification
from models.tasks.multi_label_classification import MultiLabelClassification
from models.tasks.object_detection import ObjectDetection
from models.tasks.question_answering import QuestionAnswering
from models.tasks.sentence_embedding import SentenceEmbedding
from models.tasks.summarization import SUMMARIZATION
from models.tasks.text_classification import TextClassification
from models.tasks.text_generation import TextGeneration
from models.tasks.text_regression import TextRegression
from models.tasks.token_classification import TokenClassification
from models.tasks.translation import TRANSLATION

TASKS: tuple[Task, ...] = (
    TextClassification(),
    MultiLabelClassification(),
    TextRegression(),
    TokenClassification(),
    QuestionAnswering(),
    SentenceEmbedding(),
    ImageClassification(),
    ObjectDetection(),
    TRANSLATION,
    SUMMARIZATION,
    TextGeneration(),
)


def task_named(name: str) -> Task:
    """Return the task of that name.

    Raises:
        Unsupported: there is none.
    """
    known = [task.name for task in TASKS]
    for task in TASKS:
        if task.name == name:
            return task
    raise Unsupported(f"the task {name!r} is not known", fix=f"Known: {', '.join(known)}.{nearest(name, known)}")
