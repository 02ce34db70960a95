"""The tasks. A new one is a file here and a row in TASKS."""

from __future__ import annotations

from models.task import Task
from models.tasks.text_classification import TextClassification

TASKS: tuple[Task, ...] = (TextClassification(),)
