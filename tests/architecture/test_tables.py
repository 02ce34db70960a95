"""The four tables are the only dispatch: each lists every file of its folder."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any

import pytest

import compress.stages
import export.lowering
import models.families
import models.tasks
from compress.recipe import Recipe
from compress.stage import Stage
from models.family import Family
from models.task import Task


def files(package: ModuleType) -> list[ModuleType]:
    return [
        importlib.import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__)
    ]


def made_in(module: ModuleType, kind: type) -> list[Any]:
    return [value for value in vars(module).values() if isinstance(value, kind)]


def test_every_family_is_listed() -> None:
    found = [family for file in files(models.families) for family in made_in(file, Family)]
    assert len(found) == len(files(models.families))
    assert sorted(found, key=lambda family: family.name) == sorted(
        models.families.FAMILIES, key=lambda family: family.name
    )
    kinds = [kind for family in models.families.FAMILIES for kind in family.model_types]
    assert len(kinds) == len(set(kinds))


def test_every_task_is_listed() -> None:
    of_files = [[task.name for task in models.tasks.TASKS if _is_said_in(file, task)] for file in files(models.tasks)]
    assert sorted(of_files) == sorted([task.name] for task in models.tasks.TASKS)


def _is_said_in(module: ModuleType, task: Task) -> bool:
    return type(task).__module__ == module.__name__ or any(value is task for value in vars(module).values())


def test_every_stage_is_listed() -> None:
    found = [stage for file in files(compress.stages) for stage in made_in(file, Stage)]
    assert len(found) == len(files(compress.stages))
    assert {stage.name for stage in found} == {stage.name for stage in compress.stages.STAGES}


@pytest.mark.parametrize("stage", compress.stages.STAGES, ids=lambda stage: stage.name)
def test_every_stage_is_a_key_of_the_recipe(stage: Stage[Any, Any]) -> None:
    annotation = Recipe.model_fields[stage.name].annotation
    assert stage.settings in (annotation, *getattr(annotation, "__args__", ()))


def test_every_lowering_is_listed() -> None:
    listed = {*export.lowering.LOWERINGS.values(), *export.lowering.GROUPS.values()}
    for file in files(export.lowering):
        public = {
            value
            for name, value in vars(file).items()
            if name.startswith("lower_") and getattr(value, "__module__", "") == file.__name__
        }
        assert public, file.__name__
        assert public <= listed, f"{file.__name__} holds a lowering that no row uses"
    assert {lowering.__module__ for lowering in listed} == {file.__name__ for file in files(export.lowering)}
