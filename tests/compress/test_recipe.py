"""Recipes: every key is described, every mistake is named, and nothing is run by reading one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

import compress.goal_settings
import compress.settings
from compress.recipe import MAX_RECIPE_BYTES, Recipe, keys, load_recipe, make_recipe, merged, shipped_recipes
from compress.settings import Settings
from models.errors import BadFile, BadInput

CLASSES = [
    kind
    for module in (compress.settings, compress.goal_settings)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Settings)
] + [Recipe]


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_setting_is_described(kind: type[BaseModel]) -> None:
    bare = [name for name, field in kind.model_fields.items() if not field.description]
    assert bare == []
    wrong = [name for name, field in kind.model_fields.items() if not str(field.description).strip().endswith(".")]
    assert wrong == []


def test_every_settings_class_is_part_of_a_recipe() -> None:
    met: set[type[BaseModel]] = set()

    def visit(kind: type[BaseModel]) -> None:
        met.add(kind)
        for field in kind.model_fields.values():
            for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if isinstance(inner, type) and issubclass(inner, BaseModel) and inner not in met:
                    visit(inner)

    visit(Recipe)
    unused = {kind.__name__ for kind in CLASSES if kind not in met} - {"Settings", "ScheduleSettings", "LessonSettings"}
    assert unused == set()


def test_every_dotted_key_is_listed_with_its_description() -> None:
    listed = dict(keys())
    assert listed["prune.speedup"].startswith("Target")
    assert listed["prune.recovery.losses.kl"]
    assert listed["gates.default.accuracy.max_loss"]
    assert all(listed.values())


def test_defaults() -> None:
    recipe = make_recipe({}, where="here")
    assert (recipe.name, recipe.seed, recipe.on_failure, recipe.task) == ("run", 0, "stop", None)
    stages = (recipe.train, recipe.distill, recipe.prune, recipe.quantize, recipe.export)
    assert stages == (None,) * 5
    gates = recipe.gates.of("distill")
    assert gates.accuracy is not None
    assert gates.accuracy.max_loss == 1.0
    assert gates.speed is not None
    assert gates.size is None


def test_a_recipe_is_frozen() -> None:
    recipe = make_recipe({"distill": {}}, where="here")
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_shipped_recipes_load_and_go_both_ways(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert recipe.export is not None or recipe.train is not None
    plain = yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=True))
    assert load_recipe(written(tmp_path, plain)) == recipe


def test_demo_is_shipped() -> None:
    assert {"demo", "sst2"} <= set(shipped_recipes())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("distil: {}", "unknown key 'distil'.*Did you mean 'distill'"),
        ("prune: {speed_up: 2.0}", r"unknown key 'prune\.speed_up'.*Did you mean 'speedup'"),
        ("prune: {speedup: 2, recovery: {epoch: 2}}", r"unknown key 'prune\.recovery\.epoch'.*'epochs'"),
        ("gates: {default: {acuracy: {}}}", r"unknown key 'gates\.default\.acuracy'.*'accuracy'"),
        ("data: {zzzz: 1}", r"unknown key 'data\.zzzz'.*Known: .*train.*validation"),
        ("prune: {}", "prune: give exactly one of speedup and sparsity"),
        ("prune: {speedup: 2, sparsity: 0.5}", "exactly one"),
        ("prune: {speedup: 1.0}", r"prune\.speedup: .*greater than 1"),
        ("distill: {losses: {mse: 0}}", r"distill\.losses: at least one of"),
        ("distill: {epochs: .nan}", r"distill\.epochs: .*finite"),
        ("distill: {epochs: -1}", r"distill\.epochs"),
        ("seed: -1", "seed: .*greater than or equal to 0"),
        ("seed: many", "seed: .*integer"),
        ("name: ../../etc", "name: .*pattern"),
        ("name: ''", "name"),
        ("on_failure: shrug", "on_failure: .*'stop' or 'backtrack'"),
        ("export: 3", "export"),
    ],
)
def test_mistakes_are_named(text: str, says: str, tmp_path: Path) -> None:
    source = written(tmp_path, text)
    with pytest.raises(BadInput, match=says) as caught:
        load_recipe(source)
    assert caught.value.where == source


def test_all_mistakes_are_in_one_message(tmp_path: Path) -> None:
    source = written(tmp_path, "distil: {}\nseed: -1\nprune: {speedup: 0.5}\ndata: {trian: x}\n")
    with pytest.raises(BadInput) as caught:
        load_recipe(source)
    for part in ("'distil'", "seed:", "prune.speedup:", "'data.trian'", "Did you mean 'train'"):
        assert part in str(caught.value)


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\tx: 1", "a: 'x", "%YAML 9.9.9\n---\n", "a: &x *y"])
def test_yaml_that_is_none(text: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="not valid YAML"):
        load_recipe(written(tmp_path, text))


@pytest.mark.parametrize("text", ["", "# nothing", "[]", "3", "just words"])
def test_yaml_that_is_no_mapping(text: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="a mapping of keys"):
        load_recipe(written(tmp_path, text))


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"name: \x80abc", b"name: \x07"])
def test_bytes_that_are_no_text(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(data)
    with pytest.raises(BadFile, match=r"recipe\.yaml: not "):
        load_recipe(str(path))


def test_keys_that_are_no_words(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="1: Keys should be strings"):
        load_recipe(written(tmp_path, "1: 2\n"))


def test_a_recipe_that_is_missing_names_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"no such recipe file.*Shipped recipes: .*demo.*sst2"):
        load_recipe(str(tmp_path / "none.yaml"))


def test_a_size_that_no_recipe_has(tmp_path: Path) -> None:
    text = "# " + "x" * MAX_RECIPE_BYTES
    with pytest.raises(BadFile, match="larger than 1 MB"):
        load_recipe(written(tmp_path, text))


def test_overrides_by_dotted_key(tmp_path: Path) -> None:
    source = written(tmp_path, "prune: {speedup: 2.0, rounds: 3}\nquantize: {}\n")
    changes: dict[str, Any] = {"prune.speedup": 3.0, "distill.losses.kl": 0.5, "quantize": None, "seed": 7}
    recipe = load_recipe(source, changes)
    assert recipe.prune is not None
    assert (recipe.prune.speedup, recipe.prune.rounds) == (3.0, 3)
    assert recipe.distill is not None
    assert recipe.distill.losses.kl == 0.5
    assert recipe.quantize is None
    assert recipe.seed == 7


def test_an_override_that_is_misspelt_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"'prune\.speedupp'.*Did you mean 'speedup'"):
        load_recipe(written(tmp_path, "prune: {speedup: 2.0}"), {"prune.speedupp": 3.0})


def test_merging_changes_neither_side() -> None:
    value, overrides = {"a": {"b": 1}}, {"a.b": 2, "a.c.d": 3}
    assert merged(value, overrides) == {"a": {"b": 2, "c": {"d": 3}}}
    assert value == {"a": {"b": 1}}


def test_a_stage_s_own_gates_take_the_place_of_the_default_s() -> None:
    recipe = make_recipe({"gates": {"prune": {"accuracy": {"max_loss": 4.0}}}}, where="here")
    assert recipe.gates.of("prune").accuracy.max_loss == 4.0  # type: ignore[union-attr]
    assert recipe.gates.of("prune").speed == recipe.gates.default.speed
    assert recipe.gates.of("quantize") == recipe.gates.default
