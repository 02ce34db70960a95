"""A run's book: measurements by key, the result, and a directory that is somebody else's."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.runs import make_run

from compress.ledger import RUN_FILE, Ledger
from models.errors import BadFile, BadInput


def test_a_result_goes_both_ways(tmp_path: Path) -> None:
    result = make_run()
    Ledger(tmp_path).finish(result)
    assert Ledger(tmp_path).result() == result


def test_measurements_are_kept_by_key(tmp_path: Path) -> None:
    ledger, run = Ledger(tmp_path), make_run()
    first, second = run.stages[0].validation, run.stages[1].validation
    ledger.keep({"artifact": "a", "data": "d"}, first)
    ledger.keep({"artifact": "b", "data": "d"}, second)
    assert ledger.measurement({"data": "d", "artifact": "a"}) == first
    assert ledger.measurement({"artifact": "b", "data": "d"}) == second
    assert ledger.measurement({"artifact": "c", "data": "d"}) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"artifact": 3}'])
def test_a_damaged_measurement_is_taken_again(text: str, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.keep("key", make_run().stages[0].validation)
    (file,) = (tmp_path / "measurements").iterdir()
    file.write_text(text)
    assert ledger.measurement("key") is None


def test_no_result_yet(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"run\.json: there is no such file"):
        Ledger(tmp_path).result()


@pytest.mark.parametrize("text", ["{}", "[]", '{"format": 1}'])
def test_a_result_that_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / RUN_FILE).write_text(text)
    with pytest.raises(BadFile, match="not a run's record"):
        Ledger(tmp_path).result()


def test_a_directory_of_something_else_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BadInput, match=r"holds something else \(thesis\.txt\).*--out"):
        Ledger(tmp_path).check()
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(BadInput, match="is a file"):
        Ledger(tmp_path / "thesis.txt").check()


def test_new_empty_and_unfinished_runs_are_taken(tmp_path: Path) -> None:
    Ledger(tmp_path / "new").check()
    (tmp_path / "empty").mkdir()
    Ledger(tmp_path / "empty").check()
    Ledger(tmp_path / "begun").scratch("1-distill")
    (tmp_path / "begun" / "0-teacher").mkdir()
    Ledger(tmp_path / "begun").check()
    Ledger(tmp_path / "done").finish(make_run())
    Ledger(tmp_path / "done").check()


def test_scratch_survives(tmp_path: Path) -> None:
    place = Ledger(tmp_path).scratch("1-distill")
    (place / "half").write_text("done")
    assert Ledger(tmp_path).scratch("1-distill") == place
    assert (place / "half").read_text() == "done"
