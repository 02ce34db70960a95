"""A search on tiny models: the levels, what ends them, which is chosen, and how a stopped search goes on."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.examples import TINY_PRUNING, tiny_recipe
from support.runs import Finished
from support.timing import time_by_size
from support.vocabularies import word_piece_checkpoint

from compress import frontier
from compress.choosing import choose
from compress.cli import main
from compress.frontier import first_step, search
from compress.goal_settings import SearchSettings
from compress.pacing import Room
from compress.pipeline import require_passed
from compress.recipe import make_recipe
from compress.record import RunResult, StageResult
from compress.stages import PRUNE
from compress.trials import Clock, Trials
from export.verify import verify_bundle
from models.checkpoint import Checkpoint
from models.errors import BadInput, GateFailed

RECOVERY = {"epochs": 0.1}


def recipe_in(folder: Path) -> dict[str, Any]:
    """Return the recipe of a short search whose levels are counted in weights, on a random teacher."""
    return tiny_recipe(folder) | {
        "prune": TINY_PRUNING | {"round_epochs": 0, "recovery": RECOVERY},
        "quantize": {"sensitivity": False},
        "search": {"max_drop": 99.0, "levels": 2, "fit": False},
    }


def carry_out(plain: dict[str, Any], folder: Path) -> RunResult:
    return search(make_recipe(plain, where="test"), out=folder / "runs", cache=folder / "cache")


@pytest.fixture
def plain(tmp_path: Path, timed_by_size: None) -> dict[str, Any]:
    return recipe_in(tmp_path)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("search")
    plain = recipe_in(folder)
    with pytest.MonkeyPatch.context() as patch:
        time_by_size(patch)
        result = carry_out(plain, folder)
    shutil.copytree(folder / "runs", folder / "kept")
    return Finished(plain, folder, result)


@pytest.fixture
def finished(searched: Finished, timed_by_size: None) -> Finished:
    """Return the search as it ended, put back where it was: a search knows its families by their place."""
    shutil.rmtree(searched.folder / "runs")
    shutil.copytree(searched.folder / "kept", searched.folder / "runs")
    return searched._replace(plain=copy.deepcopy(searched.plain))


def prune_by(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let searches prune by `run`."""
    monkeypatch.setattr(frontier, "PRUNE", type(PRUNE)(PRUNE.name, PRUNE.settings, run, PRUNE.milder))


@pytest.fixture
def fitting(plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the recipe of a search that fits its trainings into its time, in which its first level's are whole."""
    monkeypatch.setattr(frontier, "room_for", lambda state, root: Room(1.0, 1))
    plain["prune"] |= {"recovery": {"epochs": 1.0}}
    plain["search"] |= {"fit": True}
    return plain


def label_as_the_teacher(plain: dict[str, Any]) -> None:
    """Give every validation text the label that the teacher gives it: any other model is then worse."""
    teacher = Checkpoint.load(plain["teacher"])
    path = Path(plain["data"]["validation"])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        (encoding,) = teacher.tokenizing.encode([row["text"]], max_length=64)
        logits = teacher.network()(torch.tensor([encoding.ids]))
        row["label"] = teacher.shape.labels[int(logits.argmax())]
    path.write_text("\n".join(json.dumps(row) for row in rows))


def test_levels_shrink_and_the_fastest_is_handed_over(finished: Finished) -> None:
    result = finished.result
    require_passed(result)
    assert [stage.stage for stage in result.stages] == ["teacher", "level-1", "level-2"]
    sizes = [stage.validation.parameters for stage in result.stages]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3
    speedups = {
        stage.stage: verdict.estimate
        for stage in result.stages[1:]
        for verdict in stage.verdicts
        if verdict.gate == "speed"
    }
    assert result.chosen == max(speedups, key=lambda name: speedups[name])
    assert result.notes == ["2 levels were asked for"]
    run = finished.folder / "runs" / "tiny"
    assert verify_bundle(run / "bundle").examples == 2
    # Every point has a bundle of its own.
    assert all(
        verify_bundle(run / stage.directory, besides=("artifact.json",)).examples == 2 for stage in result.stages[1:]
    )
    manifest = json.loads((run / "bundle" / "manifest.json").read_text())
    levels = int(str(result.chosen).removeprefix("level-"))
    assert [step["stage"] for step in manifest["lineage"]] == [
        "teacher",
        *["prune"] * levels,
        "quantize",
        result.chosen,
    ]
    assert manifest["lineage"][1]["settings"]["sparsity"] == finished.plain["prune"]["sparsity"]
    page = (run / "bundle" / "README.md").read_text()
    assert page.count("- prune: `sparsity: 0.3`") == levels


def test_the_first_level_may_be_cut_further_than_later_ones() -> None:
    recipe = make_recipe({"prune": {"speedup": 1.25, "sparsity": None}, "search": {"first_speedup": 2.6}}, where="test")
    assert first_step(recipe, 5).speedup == 2.6
    assert first_step(recipe, 1).recovery == recipe.prune.recovery
    plain = make_recipe({"prune": {"speedup": 1.25, "sparsity": None}, "search": {}}, where="test")
    assert first_step(plain, 1) == plain.prune


@pytest.mark.parametrize(
    ("goal", "speedup"),
    [({"max_drop": 0.5}, 1.9), ({}, 2.6), ({"max_drop": 2.0}, 4.0), ({"max_drop": 9.0}, 5.0)],
)
def test_the_more_may_be_lost_the_further_the_first_level_is_cut(goal: dict[str, float], speedup: float) -> None:
    wanted = {"prune": {"speedup": 1.25, "sparsity": None}, "search": {**goal, "first_speedup": "goal"}}
    assert first_step(make_recipe(wanted, where="test"), 1).speedup == pytest.approx(speedup)


@pytest.mark.parametrize(("room", "speedup"), [(1, 2.6), (2, 2.6), (3, 2.08), (4, 2.08), (5, 1.66), (9, 1.25)])
def test_where_there_is_time_for_several_levels_the_first_is_milder(room: int, speedup: float) -> None:
    wanted = {"prune": {"speedup": 1.25, "sparsity": None}, "search": {"first_speedup": "goal"}}
    assert first_step(make_recipe(wanted, where="test"), room).speedup == speedup


def test_a_goal_below_the_usual_step_is_not_overshot() -> None:
    wanted = {"prune": {"speedup": 1.3, "sparsity": None}, "search": {"max_drop": 0.05, "first_speedup": "goal"}}
    assert first_step(make_recipe(wanted, where="test"), 6).speedup == pytest.approx(1.27)


def test_where_no_loss_is_named_the_first_level_is_cut_as_for_a_point() -> None:
    wanted = {"max_drop": None, "max_latency": 1.0, "first_speedup": "goal"}
    recipe = make_recipe({"prune": {"speedup": 1.25, "sparsity": None}, "search": wanted}, where="test")
    assert first_step(recipe, 1).speedup == pytest.approx(2.6)


def test_a_first_speedup_is_none_of_weights(plain: dict[str, Any], tmp_path: Path) -> None:
    recipe = make_recipe(plain | {"search": {"max_drop": 99.0, "first_speedup": 2.0}}, where="test")
    with pytest.raises(BadInput, match=r"search\.first_speedup.*share of the weights"):
        search(recipe, out=tmp_path / "runs", cache=tmp_path / "cache")
    assert not (tmp_path / "runs").exists()


def test_the_vocabulary_is_trimmed_first_and_judged_on_texts_from_elsewhere(
    plain: dict[str, Any], tmp_path: Path
) -> None:
    word_piece_checkpoint(seed=1).save(Path(plain["teacher"]))
    elsewhere = tmp_path / "elsewhere.jsonl"
    elsewhere.write_text("\n".join(json.dumps({"text": f"w{number % 48 + 2}"}) for number in range(120)))
    plain["data"] |= {"foreign": str(elsewhere)}
    result = carry_out(plain | {"trim": {}, "gates": {"default": {"agreement": {"min_share": 0.01}}}}, tmp_path)
    require_passed(result)
    assert [stage.stage for stage in result.stages] == ["teacher", "trimmed", "level-1", "level-2"]
    assert [verdict.gate for verdict in result.stages[1].verdicts] == ["agreement"]
    assert result.stages[1].foreign is not None
    assert result.chosen in ("level-1", "level-2")
    plain["search"]["levels"] = 1
    strict = {"default": {"agreement": {"min_share": 0.999, "confidence": 0.99}}}
    stopped = carry_out(plain | {"trim": {}, "gates": strict}, tmp_path)
    assert [stage.stage for stage in stopped.stages] == ["teacher", "trimmed"]
    assert stopped.chosen is None


def test_a_finished_search_computes_nothing_and_more_levels_go_on(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, folder, first = finished
    pruned: list[int] = []
    real = PRUNE.run

    def counted(*arguments: Any) -> Any:
        pruned.append(1)
        return real(*arguments)

    prune_by(counted, monkeypatch)
    again = carry_out(plain, folder)
    assert not pruned
    assert again.stages == first.stages
    assert first.computed == ["teacher", "level-1", "level-2"]
    assert again.computed == []
    plain["search"]["levels"] = 3
    further = carry_out(plain, folder)
    assert len(pruned) == 1
    assert further.stages[:3] == first.stages
    assert further.computed == ["level-3"]


def test_a_search_that_was_killed_goes_on(
    plain: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels: list[int] = []
    real = PRUNE.run

    def dies(*arguments: Any) -> Any:
        levels.append(1)
        if len(levels) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    prune_by(dies, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        carry_out(plain, tmp_path)
    result = carry_out(plain, tmp_path)
    assert len(levels) == 3  # the first level stands
    assert [stage.stage for stage in result.stages] == ["teacher", "level-1", "level-2"]


def test_the_first_level_that_loses_too_much_ends_it(plain: dict[str, Any], tmp_path: Path) -> None:
    label_as_the_teacher(plain)
    plain["search"] |= {"max_drop": 0.01, "levels": 5}
    result = carry_out(plain, tmp_path)
    assert [stage.stage for stage in result.stages] == ["teacher", "level-1", "milder-level-1"]
    assert result.chosen is None
    said = "level-1 loses more than 0.01 points"
    assert result.notes == [f"{said}; milder-{said}"]
    assert not (tmp_path / "runs" / "tiny" / "bundle").exists()
    with pytest.raises(GateFailed, match="accuracy gate"):
        require_passed(result)


@pytest.fixture
def level_1_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the gate find that the first level loses too much."""
    real = frontier.judged

    def judged(*arguments: Any, **options: Any) -> StageResult:
        found = real(*arguments, **options)
        if found.stage != "level-1":
            return found
        lost = [one.model_copy(update={"passed": one.gate != "accuracy"}) for one in found.verdicts]
        return found.model_copy(update={"verdicts": lost})

    monkeypatch.setattr(frontier, "judged", judged)


@pytest.mark.usefixtures("level_1_loses")
def test_after_a_first_level_that_loses_too_much_a_milder_one_is_tried(
    fitting: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frontier, "share_left", lambda seconds, **took: 0.5)
    result = carry_out(fitting, tmp_path)
    teacher, first, milder, last = result.stages
    assert [stage.stage for stage in (first, milder, last)] == ["level-1", "milder-level-1", "milder-level-2"]
    assert teacher.validation.parameters > milder.validation.parameters > first.validation.parameters
    assert result.chosen in ("milder-level-1", "milder-level-2")
    # Both together err as often as one would have: 4 % and 1 %.
    assert [f" {share} % confidence" in one.verdicts[0].message for one, share in ((first, 96), (milder, 99))] == [
        True,
        True,
    ]
    settings = json.loads(
        (tmp_path / "runs" / "tiny" / milder.directory)
        .with_name("milder-1-prune")
        .joinpath("artifact.json")
        .read_text()
    )["settings"]
    assert settings["sparsity"] == pytest.approx(0.7 * fitting["prune"]["sparsity"])
    assert settings["recovery"]["epochs"] == 0.5
    assert "level-1 loses more than 99 points; 2 levels were asked for" in result.notes[0]
    assert "of milder-level-1 0.5 times as long" in result.notes[0]
    assert verify_bundle(tmp_path / "runs" / "tiny" / "bundle").examples == 2
    monkeypatch.setattr(frontier, "share_left", lambda seconds, **took: 0.0)  # what was begun is there
    again = carry_out(fitting, tmp_path)
    assert again.computed == []
    assert again.stages == result.stages


@pytest.mark.usefixtures("level_1_loses")
def test_a_milder_one_is_not_begun_too_late(
    fitting: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frontier, "share_left", lambda seconds, **took: 0.0)
    result = carry_out(fitting, tmp_path)
    assert [stage.stage for stage in result.stages] == ["teacher", "level-1"]
    assert result.chosen is None


@pytest.mark.usefixtures("level_1_loses")
def test_nothing_is_milder_than_what_is_not_cut(plain: dict[str, Any], tmp_path: Path) -> None:
    plain["prune"] |= {"recovery": {"epochs": 0.0}}
    result = carry_out(plain, tmp_path)
    assert [stage.stage for stage in result.stages] == ["teacher", "level-0", "level-1"]
    assert result.chosen == "level-0"
    assert " 95 % confidence" in result.stages[1].verdicts[0].message


def test_small_enough_is_enough(finished: Finished) -> None:
    mildest = finished.result.stages[1]
    finished.plain["search"] |= {"max_size": mildest.validation.bytes / 1e6, "max_drop": 99.0, "levels": 5}
    result = carry_out(finished.plain, finished.folder)
    assert result.chosen == "level-1"
    assert [stage.stage for stage in result.stages] == ["teacher", "level-1"]


def test_nothing_more_can_be_removed(plain: dict[str, Any], tmp_path: Path) -> None:
    plain["prune"] |= {"sparsity": 0.95}
    plain["search"]["levels"] = 9
    result = carry_out(plain, tmp_path)
    assert result.notes == ["nothing more can be removed"]


def test_no_level_is_begun_too_late(plain: dict[str, Any], tmp_path: Path) -> None:
    plain["search"] |= {"minutes": 1e-4}
    result = carry_out(plain, tmp_path)
    assert [stage.stage for stage in result.stages] == ["teacher", "level-1"]
    assert "would not end within" in result.notes[0]
    plain["search"] |= {"minutes": 60.0}
    assert [stage.stage for stage in carry_out(plain, tmp_path).stages] == ["teacher", "level-1", "level-2"]


def test_a_level_that_does_not_fit_learns_for_less_long(
    fitting: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, float]] = []

    def half(seconds: float, **took: float) -> float:
        assert 0 < seconds < 3600
        asked.append(took)
        return 0.5

    monkeypatch.setattr(frontier, "share_left", half)
    result = carry_out(fitting, tmp_path)
    assert [stage.stage for stage in result.stages] == ["teacher", "level-1", "level-2"]
    first, second = (
        json.loads((tmp_path / "runs" / "tiny" / "family" / f"{level}-prune" / "artifact.json").read_text())
        for level in (1, 2)
    )
    assert first["settings"]["recovery"]["epochs"] == 1.0
    assert second["settings"]["recovery"]["epochs"] == 0.5
    assert asked[0]["share"] == 1.0
    assert 0 < asked[0]["trained"] < asked[0]["took"]
    assert "2 levels were asked for" in result.notes[0]
    assert "of level-2 0.5 times as long" in result.notes[0]
    # What there is time for by now does not matter to what is there.
    monkeypatch.setattr(frontier, "share_left", lambda seconds, **took: 0.25)
    again = carry_out(fitting, tmp_path)
    assert again.computed == []
    assert again.notes == result.notes


def test_a_level_that_was_begun_is_finished_as_it_was_begun(
    fitting: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lengths = PRUNE.run, []

    def dies(parent: Any, settings: Any, context: Any) -> Any:
        lengths.append(settings.recovery.epochs)
        if len(lengths) == 2:
            raise KeyboardInterrupt
        return real(parent, settings, context)

    prune_by(dies, monkeypatch)
    monkeypatch.setattr(frontier, "share_left", lambda seconds, **took: 0.5)
    with pytest.raises(KeyboardInterrupt):
        carry_out(fitting, tmp_path)
    monkeypatch.setattr(frontier, "share_left", lambda seconds, **took: 0.0)  # no time for another is left
    assert [stage.stage for stage in carry_out(fitting, tmp_path).stages] == ["teacher", "level-1", "level-2"]
    assert lengths == [1.0, 0.5, 0.5]


def test_families_do_not_shorten_their_trainings(
    fitting: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[float] = []

    def asked(seconds: float, **took: float) -> float:
        trained.append(took["trained"])
        return 1.0

    monkeypatch.setattr(frontier, "share_left", asked)
    fitting["search"] |= {"levels": 1, "trials": 2, "space": {"prune.sparsity": [0.2]}}
    carry_out(fitting, tmp_path)
    assert trained == [0.0, 0.0]


def test_minutes_are_those_of_all_calls(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, folder, _ = finished
    opened: list[Trials] = []
    before: list[float] = []  # seconds that the next one has been at work
    real = Trials.__init__

    def noticed(self: Trials, *arguments: Any, **options: Any) -> None:
        real(self, *arguments, **options)
        if before:
            self.spent = before.pop()
        opened.append(self)

    monkeypatch.setattr(Trials, "__init__", noticed)
    carry_out(plain, folder)
    assert 0 < opened[0].spent < 3600
    opened[0].spent = 3600.0  # as if it had worked for the whole hour
    assert [stage.stage for stage in carry_out(plain, folder).stages] == ["teacher", "level-1", "level-2"]
    assert opened[-1].spent > 3600
    plain["search"] |= {"levels": 3}
    before.append(3600.0)  # another study: what it looks for is another
    stopped = carry_out(plain, folder)
    assert [stage.stage for stage in stopped.stages] == ["teacher", "level-1", "level-2"]
    assert "would not end within 60 minutes" in stopped.notes[0]
    plain["search"] |= {"minutes": 90.0}
    assert len(carry_out(plain, folder).stages) == 4
    plain["search"] |= {"minutes": 60.0}
    assert len(carry_out(plain, folder).stages) == 4  # what is there costs nothing


def test_the_clock_goes_on_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("compress.trials.time.monotonic", lambda: now[0])

    def opened() -> Clock:
        trials = Trials(SearchSettings(), name="x", directory=tmp_path, seed=0)
        return Clock(trials, began=now[0])

    shown: list[int] = []
    clock = opened()
    tick = clock.watched(lambda label: lambda done, total: shown.append(done))("work")
    for second in (1, 10, 25, 30, 70):
        now[0] = 100.0 + second
        tick(second, 100)
    assert shown == [1, 10, 25, 30, 70]
    now[0] = 175.0  # killed here: five seconds after the last note
    now[0] = 5.0  # another process, another clock
    again = opened()
    assert again.seconds == 70.0
    now[0] = 6.0
    assert again.seconds == 71.0
    assert Trials(SearchSettings(), name="y", directory=tmp_path, seed=0).spent == 0.0


def test_another_goal_judges_the_same_models(
    plain: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    monkeypatch.setattr(frontier, "room_for", lambda state, root: asked.append(1.0) or Room(0.5, 1))
    plain["search"] |= {"levels": 1}
    carry_out(plain, tmp_path)
    plain["search"] |= {"max_drop": 98.0}
    again = carry_out(plain, tmp_path)
    assert asked == [1.0]
    assert again.computed == []


def test_families_are_drawn_from_the_space(plain: dict[str, Any], tmp_path: Path) -> None:
    plain["search"] |= {"levels": 1, "trials": 3, "space": {"prune.sparsity": [0.2, 0.5]}}
    result = carry_out(plain, tmp_path)
    assert [stage.stage for stage in result.stages[1:]] == ["trial-0-level-1", "trial-1-level-1", "trial-2-level-1"]
    assert len({stage.validation.parameters for stage in result.stages[1:]}) == 3
    # Each of three families is judged with a third of the error.
    assert "98.3333 % confidence" in result.stages[1].verdicts[0].message
    assert carry_out(plain, tmp_path).stages == result.stages


def test_a_family_that_was_begun_is_begun_again(tmp_path: Path) -> None:
    settings = SearchSettings(trials=3, space={"seed": (1, 2, 3), "prune.rounds": (1, 2)})

    def opened() -> Trials:
        return Trials(settings, name="x", directory=tmp_path, seed=0)

    trials = opened()
    first = trials.next()
    assert first is not None
    assert first.folder == "family"
    trials.tell(first, 1.0)
    begun = trials.next()
    assert begun is not None
    assert set(begun.keys) == {"seed", "prune.rounds"}
    again = opened().next()
    assert again is not None
    assert again.folder == begun.folder


def test_searches_that_share_a_storage_share_the_families(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    settings = SearchSettings(trials=2, space={"seed": (1,)}, storage=url)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    one = Trials(settings, name="x", directory=tmp_path / "a", seed=0)
    other = Trials(settings, name="x", directory=tmp_path / "b", seed=0)
    first, second = one.next(), other.next()
    assert first is not None
    assert second is not None
    assert (first.keys, second.keys) == ({}, {"seed": 1})
    assert one.next() is None
    one.tell(first, 1.0)
    assert [trial.number for trial in one.finished()] == [first.number]
    assert other.finished() == []


def test_a_storage_that_is_none_is_named(tmp_path: Path) -> None:
    settings = SearchSettings(storage="nonsense://x")
    with pytest.raises(BadInput, match=r"search\.storage"):
        Trials(settings, name="x", directory=tmp_path, seed=0)


def test_with_a_bound_the_most_accurate_that_keeps_it_is_chosen(finished: Finished) -> None:
    points = finished.result.stages[1:]
    good = [
        point.model_copy(
            update={
                "validation": point.validation.model_copy(update={"estimate": share}),
                "verdicts": [verdict.model_copy(update={"passed": True}) for verdict in point.verdicts],
            }
        )
        for point, share in zip(points, (0.4, 0.6), strict=True)
    ]
    chosen = choose(good, SearchSettings(max_latency=1.0))
    assert chosen is not None
    assert chosen.stage == "level-2"
    assert choose([], SearchSettings()) is None


def test_without_any_training_what_is_not_cut_is_the_first_level(plain: dict[str, Any], tmp_path: Path) -> None:
    plain["prune"] |= {"recovery": {"epochs": 0.0}}
    result = carry_out(plain, tmp_path)
    assert [stage.stage for stage in result.stages] == ["teacher", "level-0", "level-1"]
    teacher, whole, cut = (stage.validation.parameters for stage in result.stages)
    assert teacher == whole > cut


def test_a_recipe_without_a_search_is_refused(plain: dict[str, Any], tmp_path: Path) -> None:
    del plain["search"], plain["prune"]
    with pytest.raises(BadInput, match="no search and no prune"):
        carry_out(plain, tmp_path)


def test_the_command_prints_one_report(
    plain: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(plain))
    words = ["search", str(recipe), "--out", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]
    with pytest.raises(SystemExit) as exit_:
        main([*words, "--no-retraining", "--max-size", "8MB", "--set", "prune.speedup=null", "--json"])
    assert exit_.value.code == 0
    report = json.loads(capsys.readouterr().out)
    assert report["chosen"] == "level-0"
    assert report["headline"]["stage"] == "level-0"
    assert report["recipe"]["search"]["max_size"] == 8.0
    assert (tmp_path / "runs" / "tiny" / "report.html").exists()
