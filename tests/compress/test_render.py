"""What a person sees in a terminal, and what a pipe or the log of a build gets."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.runs import latency, make_run

from compress.cli import render
from compress.cli.render import LiveProgress, print_error, print_facts, print_sealed, print_summary, summary_table
from compress.record import RunResult
from compress.report.data import make_report
from models.errors import BadInput, GateFailed

Captured = pytest.CaptureFixture[str]


def lines_of_table(result: RunResult, *, width: int = 200) -> list[str]:
    """Return the lines of the table, as wide as it wants to be."""
    out = Console(file=io.StringIO(), width=width)
    out.print(summary_table(make_report(result)))
    assert isinstance(out.file, io.StringIO)
    return [line.rstrip() for line in out.file.getvalue().splitlines()]


def huge(run: RunResult) -> RunResult:
    """Return a run whose every figure is as long as it gets."""
    stages = []
    for stage in run.stages:
        slow = latency(5_432.1, seed=1)
        sure = {"estimate": 1.0, "low": 1.0, "high": 1.0, "parameters": 987_654_321_000, "bytes": 12_345_678_901}
        times = {"latency": slow, "baseline_latency": latency(5_432.1 * 456.7, seed=2)}
        validation = stage.validation.model_copy(update={**sure, **times})
        test = None if stage.test is None else stage.test.model_copy(update=sure)
        stages.append(stage.model_copy(update={"validation": validation, "test": test}))
    return run.model_copy(update={"stages": stages})


def failed(run: RunResult) -> RunResult:
    """Return a run whose last stage failed its accuracy gate."""
    last = run.stages[-1]
    bad, *good = last.verdicts
    said = {"passed": False, "message": f"accuracy gate: {'much too wrong, ' * 20}[n = 1]."}
    stages = [*run.stages[:-1], last.model_copy(update={"verdicts": [bad.model_copy(update=said), *good]})]
    return run.model_copy(update={"stages": stages, "passed": False})


@pytest.mark.parametrize("run", [make_run(), huge(make_run()), make_run(test=0), failed(make_run())])
def test_the_table_fits_80_columns_with_a_line_for_each_stage(run: RunResult) -> None:
    lines = lines_of_table(run)
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[2:]] == [stage.stage for stage in run.stages]


def test_the_table_tells_the_figures_of_the_report() -> None:
    lines = lines_of_table(make_run())
    for line, stage in zip(lines[2:], make_report(make_run()).stages, strict=True):
        words = line.split()
        on, test = stage.accuracy.validation, stage.accuracy.test
        assert stage.latency is not None and stage.speedup is not None and test is not None
        assert words[1:3] == [f"{stage.parameters / 1e6:.1f}", "M"]
        assert words[3:] == [
            f"{stage.bytes / 1e6:.1f}",
            f"{100 * on.estimate:.1f}",
            f"({100 * on.low:.1f}-{100 * on.high:.1f})",
            f"{100 * test.estimate:.1f}",
            *(f"{ms:.2f}" if ms < 10 else f"{ms:.1f}" for ms in (stage.latency.p50_ms, stage.latency.p95_ms)),
            f"{stage.speedup.estimate:.2f}x",
            "-" if stage.passed is None else "passed",
        ]


def test_columns_without_figures_are_left_out() -> None:
    heads = " ".join(lines_of_table(make_run(timed=False, test=0))[:2])
    assert not {"test", "p50", "p95", "ms", "speed-up"} & set(heads.split())
    assert {"params", "MB", "accuracy", "gates"} <= set(heads.split())


@pytest.mark.parametrize("columns", ["40", "80", "300"])
def test_a_pipe_gets_plain_whole_lines(
    columns: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    run = failed(make_run())
    print_summary(make_report(run), tmp_path)
    told = capsys.readouterr().out
    assert "\x1b" not in told
    lines = [line.rstrip() for line in told.splitlines()]
    assert lines[: len(lines_of_table(run))] == lines_of_table(run)
    assert f"FAILED export: {run.stages[-1].verdicts[0].message}" in lines


def test_the_gates_of_the_last_stage_and_every_failure_are_told(tmp_path: Path, capsys: Captured) -> None:
    print_summary(make_report(make_run()), tmp_path)
    told = capsys.readouterr().out
    assert told.count("passed export: ") == 3
    assert "passed prune: " not in told and "FAILED" not in told
    run = failed(make_run(stages=3))
    later = make_run().stages[3]
    print_summary(make_report(run.model_copy(update={"stages": [*run.stages, later]})), tmp_path)
    told = capsys.readouterr().out
    assert re.findall(r"^(\w+) (\w+): (\w+)", told, re.MULTILINE) == [
        ("FAILED", "prune", "accuracy"),
        ("passed", "quantize", "accuracy"),
        ("passed", "quantize", "speed"),
    ]


def test_it_says_where_everything_is(tmp_path: Path, capsys: Captured) -> None:
    place = tmp_path / ("a long name [of a run] " * 8)
    (place / "bundle").mkdir(parents=True)
    (place / "report.html").touch()
    print_summary(make_report(make_run()), place)
    assert capsys.readouterr().out.endswith(f"bundle  {place / 'bundle'}\nreport  {place / 'report.html'}\n")
    print_summary(make_report(failed(make_run())), place)
    told = capsys.readouterr().out
    assert "bundle" not in told.replace(str(place), ""), "that bundle is an earlier run's"
    assert told.endswith(f"report  {place / 'report.html'}\n")


def test_colour_is_for_terminals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=80, markup=False)
    monkeypatch.setattr(render, "console", lambda: out)
    print_summary(make_report(failed(make_run())), tmp_path)
    assert isinstance(out.file, io.StringIO)
    assert "\x1b[1;31mFAILED\x1b[0m" in out.file.getvalue()


def test_facts_are_lines_of_name_and_value(capsys: Captured) -> None:
    print_facts(
        {
            "hidden_size": 128,
            "path": "/a/" + "long/" * 40,
            "share": 0.123456,
            "labels": ["a_b", "c"],
            "layers": [{"heads": 4, "ffn": 704}],
            "int8": {"layers.0.ffn_up": "dynamic"},
            "none": {},
        }
    )
    assert capsys.readouterr().out.splitlines() == [
        "hidden size  128",
        f"path         /a/{'long/' * 40}",
        "share        0.1235",
        "labels       a_b, c",
        "layers",
        "  0: heads 4, ffn 704",
        "int8",
        "  layers.0.ffn_up  dynamic",
        "none         {}",
    ]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BadInput("is empty", where="a.csv", fix="Give rows."), "error: is empty\nwhere: a.csv\ntry: Give rows.\n"),
        (BadInput("is empty"), "error: is empty\n"),
        (GateFailed("too slow", where="stage prune", fix=None), "gate failed: too slow\nwhere: stage prune\n"),
        (BadInput("x" * 300), f"error: {'x' * 300}\n"),
    ],
)
def test_errors_say_what_where_and_what_to_do(error: Any, expected: str, capsys: Captured) -> None:
    print_error(error)
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", expected)


def test_a_stage_without_measurements_says_so(capsys: Captured) -> None:
    record = make_run().stages[2].artifact
    print_sealed(record, Path("out"))
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"prune: 14.3 M parameters in out ({record.digest[:12]})"
    assert "--validation" in second


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(render, "monotonic", lambda: self.now)


def test_a_log_gets_a_line_now_and_then_of_long_work(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with LiveProgress(quiet=False) as progress:
        tick = progress("training [a]")
        for done in range(1, 601):
            clock.now += 0.25
            tick(done, 600)
        quick = progress("calibrate")
        for done in range(1, 6):
            clock.now += 0.25
            quick(done, 5)
    assert capsys.readouterr().err.splitlines() == [
        "training [a]: 1 % of 600, about 2 min 28 s left",
        "training [a]: 21 % of 600, about 1 min 58 s left",
        "training [a]: 41 % of 600, about 1 min 28 s left",
        "training [a]: 61 % of 600, about 58 s left",
        "training [a]: 81 % of 600, about 28 s left",
    ]


def test_work_that_begins_again_under_its_name_is_timed_anew(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    tick = LiveProgress(quiet=False)("evaluate")
    for _ in range(3):
        for done in (1, 2, 3):
            clock.now += 0.9
            tick(done, 3)
    tick(0, 0)
    assert capsys.readouterr().err == ""


def test_a_finished_stage_is_one_line(capsys: Captured) -> None:
    run = failed(make_run())
    with LiveProgress(quiet=False) as progress:
        for stage in (run.stages[0], run.stages[1], run.stages[-1], make_run(stages=2, timed=False).stages[1]):
            progress.stage_done(stage)
    assert capsys.readouterr().err.splitlines() == [
        "teacher   accuracy 92.4 %, p50 12.4 ms, 91.3 MB",
        "distill   accuracy 92.1 %, p50 6.31 ms, 69.9 MB, passed",
        "export    accuracy 91.6 %, p50 1.81 ms, 14.9 MB, FAILED at the accuracy gate",
        "distill   accuracy 92.1 %, 69.9 MB, passed",
    ]


def test_a_quiet_display_says_nothing(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with LiveProgress(quiet=True) as progress:
        tick = progress("training")
        for done in range(1, 4):
            clock.now += 100
            tick(done, 3)
        progress.stage_done(make_run().stages[1])
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "")


def test_a_terminal_gets_bars_that_go_and_lines_that_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Console(file=io.StringIO(), force_terminal=True, width=100, markup=False, color_system=None)
    monkeypatch.setattr(render, "console", lambda *, stderr: out)
    clock = Clock(monkeypatch)
    with LiveProgress(quiet=False) as progress:
        tick = progress("latency of heads [and] neurons")
        for done in range(1, 4):
            clock.now += 1.0
            tick(done, 4)
        progress.bars.refresh()
        assert isinstance(out.file, io.StringIO)
        assert "latency of heads [and] neurons" in out.file.getvalue() and "3/4" in out.file.getvalue()
        tick(4, 4)
        assert not progress.bars.tasks
        progress.stage_done(make_run().stages[1])
    last = out.file.getvalue().split("\x1b[2K")
    assert "distill   accuracy 92.1 %, p50 6.31 ms, 69.9 MB, passed" in out.file.getvalue()
    assert "neurons" not in last[-1]
