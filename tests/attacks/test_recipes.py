"""A recipe is data: reading one runs nothing, opens nothing and does not swell."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.recipe import load_recipe
from models.errors import BadFile, CompressError

TAGS = [
    "!!python/object/apply:pathlib.Path.touch [{mark}]",
    "!!python/object/apply:os.system ['touch {mark}']",
    "!!python/object/new:subprocess.Popen [['touch', '{mark}']]",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/tuple [1, 2]",
    "!include {mark}",
]


@pytest.mark.parametrize("tag", TAGS)
def test_tags_that_would_run_code(tag: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: {tag.format(mark=mark)}\n")
    with pytest.raises(BadFile, match="not valid YAML"):
        load_recipe(str(path))
    assert not mark.exists()


def test_a_billion_laughs_do_not_swell(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    path = tmp_path / "recipe.yaml"
    path.write_text("\n".join([*lines, "name: *a11"]))
    with pytest.raises(CompressError) as caught:
        load_recipe(str(path))
    assert len(str(caught.value)) < 5000


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("data: " + "[" * 20_000)
    with pytest.raises(BadFile, match="not valid YAML"):
        load_recipe(str(path))


def test_the_name_of_a_run_is_no_path(tmp_path: Path) -> None:
    for name in ("../x", "/etc", "a/b", ".hidden", "", "a" * 65, "a\\nb"):
        path = tmp_path / "recipe.yaml"
        path.write_text(f'name: "{name}"\n')
        with pytest.raises(CompressError, match="name"):
            load_recipe(str(path))
