"""Trainings that fit into the time of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.examples import TINY_PRUNING, tiny_recipe

from compress import pacing
from compress.frontier import search
from compress.pacing import Pace, affordable_levels, affordable_share, scaled, share_left
from compress.recipe import Recipe, make_recipe


def recipe_of(*, epochs: float = 1.0, copies: int = 3, distilling: float | None = 4.0, levels: int = 12) -> Recipe:
    value: dict[str, Any] = {
        "name": "tiny",
        "prune": {
            "speedup": 1.3,
            "rounds": 2,
            "round_epochs": 0.1,
            "recovery": {"epochs": epochs, "copies": copies},
        },
        "export": {},
        "search": {"levels": levels},
    }
    return make_recipe(value | ({"distill": {"epochs": distilling}} if distilling else {}), where="test")


def passes(recipe: Recipe) -> tuple[float, float, float]:
    """Return passes over the texts themselves: of the distillation, of a level, and between its rounds."""
    assert recipe.distill is not None
    assert recipe.prune is not None
    recovery = recipe.prune.recovery
    copies = 1 + recovery.copies
    return recipe.distill.epochs, recovery.epochs * copies, recipe.prune.round_epochs * copies


@given(st.floats(0.01, 20.0), st.floats(0.1, 5.0), st.integers(0, 5))
def test_every_training_gets_the_same_share(share: float, epochs: float, copies: int) -> None:
    whole = recipe_of(epochs=epochs, copies=copies)
    less = scaled(whole, share)
    assert passes(less) == pytest.approx(tuple(share * one for one in passes(whole)), rel=0.01, abs=0.01)
    assert less.prune is not None
    assert less.prune.recovery.copies <= max(1.0, share) * (1 + copies)
    assert (less.prune.recovery.copies > 0) <= (copies > 0)


def test_copies_come_and_go_first() -> None:
    cases = ((2.0, 1.0, 7), (1.5, 1.0, 5), (1.0, 1.0, 3), (0.75, 1.0, 2), (0.6, 0.8, 2), (0.25, 1.0, 0), (0.1, 0.4, 0))
    for share, epochs, copies in cases:
        less = scaled(recipe_of(), share).prune
        assert less is not None
        assert (less.recovery.epochs, less.recovery.copies) == (pytest.approx(epochs), copies)


@pytest.mark.parametrize(("share", "epochs", "copies"), [(0.39, 3.12, 0), (0.5, 4.0, 0), (0.6, 2.4, 1), (1.6, 3.2, 3)])
def test_passes_over_the_texts_themselves_stay_longer_than_copies(share: float, epochs: float, copies: int) -> None:
    less = scaled(recipe_of(epochs=4.0, copies=1), share).prune
    assert less is not None
    assert (less.recovery.epochs, less.recovery.copies) == (pytest.approx(epochs), copies)


def test_all_of_the_recipe_is_left_alone() -> None:
    recipe = recipe_of()
    assert scaled(recipe, 1.0) is recipe


@given(st.floats(1.0, 1e4), st.floats(1.0, 1e4), st.integers(500, 10**6), st.floats(300, 1e5))
def test_the_share_is_the_largest_that_fits(teacher: float, student: float, texts: int, seconds: float) -> None:
    recipe, pace = recipe_of(), Pace(teacher, student)
    share = affordable_share(recipe, pace, texts=texts, validation=100, seconds=seconds)
    most = max(1.0, pacing.ENOUGH / (4 * texts))
    taken = [pacing._seconds(scaled(recipe, one), 1, pace, texts, 100) for one in (share, share + 0.01)]
    assert taken[0] <= seconds or share == 0.01
    assert share >= most - 0.01 or taken[1] > seconds


def test_the_time_is_that_of_the_texts_and_the_levels() -> None:
    recipe = recipe_of(epochs=1.0, copies=1, distilling=2.0, levels=1)
    # 100 texts are answered for the distillation, 200 for the level, 2 x 50 evaluated, at 10 a second; 2 x 100 and
    # 1.1 x 200 / 1.2 texts are learned from at 5 a second.
    wanted = (100 + 200 + 100) / 10 + (200 + 220 / 1.2) / 5 + 120
    assert pacing._seconds(recipe, 1, Pace(10.0, 5.0), 100, 50) == pytest.approx(wanted)
    # A second level reads and answers as much again, and is trained quicker.
    wanted += (200 + 100) / 10 + 220 / 1.44 / 5 + 120
    assert pacing._seconds(recipe, 2, Pace(10.0, 5.0), 100, 50) == pytest.approx(wanted)


@given(st.floats(1.0, 1e4), st.floats(1.0, 1e4), st.integers(500, 10**6), st.floats(300, 1e5))
def test_the_levels_are_as_many_as_fit(teacher: float, student: float, texts: int, seconds: float) -> None:
    recipe, pace = recipe_of(), Pace(teacher, student)
    levels = affordable_levels(recipe, 1.0, pace, texts=texts, validation=100, seconds=seconds)
    assert recipe.search is not None
    assert 1 <= levels <= recipe.search.levels
    taken = [pacing._seconds(recipe, one, pace, texts, 100) for one in (levels, levels + 1)]
    assert taken[0] <= seconds or levels == 1
    assert taken[1] > seconds or levels == recipe.search.levels


@pytest.mark.usefixtures("timed_by_size")
def test_a_search_is_scaled_once_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    plain = tiny_recipe(tmp_path) | {
        "prune": TINY_PRUNING | {"recovery": {"epochs": 1.0, "copies": 3, "batch_size": 16}},
        "quantize": {"sensitivity": False},
        "search": {"max_drop": 99.0, "levels": 1, "minutes": 2.0},
    }
    asked: list[float] = []

    def half(recipe: Recipe, pace: Pace, *, texts: int, validation: int, seconds: float) -> float:
        assert pace.teacher > 0
        assert pace.student > 0
        assert (texts, validation) == (96, 60)
        asked.append(seconds)
        return 0.5

    monkeypatch.setattr(pacing, "affordable_share", half)
    for _ in range(2):
        result = search(make_recipe(plain, where="test"), out=tmp_path / "runs", cache=tmp_path / "cache")
    assert asked == [pytest.approx(108.0)]
    assert "trainings were 0.5 times as long" in result.notes[0]
    assert not list((tmp_path / "runs" / "tiny" / "scratch" / "pace").iterdir())


@pytest.mark.usefixtures("timed_by_size")
def test_without_training_nothing_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "_pace", lambda state, root: pytest.fail("timed"))
    plain = tiny_recipe(tmp_path) | {
        "prune": TINY_PRUNING | {"round_epochs": 0, "recovery": {"epochs": 0.0}},
        "quantize": {"sensitivity": False},
        "search": {"max_drop": 99.0, "levels": 1},
    }
    result = search(make_recipe(plain, where="test"), out=tmp_path / "runs", cache=tmp_path / "cache")
    assert result.notes == ["1 levels were asked for"]


@given(st.floats(0.01, 1.0), st.floats(1.0, 5000.0), st.floats(0.0, 1000.0), st.floats(-100.0, 10000.0))
def test_what_is_left_of_the_time_is_used(share: float, trained: float, rest: float, seconds: float) -> None:
    ahead = share_left(seconds, took=trained + rest, trained=trained, share=share)
    assert ahead == 0 or pacing.SHORTEST <= ahead <= 1

    def lasts(length: float) -> float:
        return rest + trained * length / share

    assert ahead == 0 or lasts(ahead) <= seconds + 1e-6
    longer = max(pacing.SHORTEST, ahead + 0.011)
    assert longer > 1 or lasts(longer) > seconds


def test_without_training_nothing_is_shortened() -> None:
    assert share_left(100.0, took=99.0, trained=0.0, share=1.0) == 1.0
    assert share_left(100.0, took=101.0, trained=0.0, share=1.0) == 0.0


def test_few_texts_are_learned_from_more_often_but_not_for_ever() -> None:
    fast = Pace(1e9, 1e9)
    for texts, share in ((1000, 60.0), (60_000, 1.0), (10**6, 1.0)):
        assert affordable_share(recipe_of(), fast, texts=texts, validation=10, seconds=1e6) == pytest.approx(share)


@pytest.mark.usefixtures("timed_by_size")
def test_a_search_may_keep_to_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "_pace", lambda state, root: pytest.fail("timed"))
    plain = tiny_recipe(tmp_path) | {
        "prune": TINY_PRUNING | {"round_epochs": 0, "recovery": {"epochs": 1.0}},
        "quantize": {"sensitivity": False},
        "search": {"max_drop": 99.0, "levels": 1, "fit": False},
    }
    result = search(make_recipe(plain, where="test"), out=tmp_path / "runs", cache=tmp_path / "cache")
    assert result.notes == ["1 levels were asked for"]
