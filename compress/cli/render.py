"""What a person sees: one display of progress, the summary table, facts and errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from compress.record import ArtifactRecord, StageResult, Verdict
from compress.report import wording
from compress.report.data import Report, StageReport
from models.errors import CompressError, GateFailed

WIDTH = 80  # columns that a summary fits into
REDRAW_S = 0.1
FIRST_LINE_S, NEXT_LINE_S = 2.0, 30.0  # without a terminal: when work is first told of, and how often again

Tick = Callable[[int, int], None]


def console(*, stderr: bool = False) -> Console:
    """Return where to print: text as it is, whole lines for pipes, colour on terminals only."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


@final
class LiveProgress:
    """The display of progress on stderr.

    On a terminal every piece of work has a bar with the time left, which goes when the work is done; elsewhere, as in
    the log of a build, a line now and then says how far long work is. Both get a line for each finished stage. A quiet
    display shows nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.console = console(stderr=True)
        self.bars = Progress(
            TextColumn("{task.description:<28}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
        )

    def __enter__(self) -> LiveProgress:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def __call__(self, label: str) -> Tick:
        """Return a function that takes (done, total) for a named piece of work."""
        if self.quiet:
            return lambda done, total: None
        return self._lines(label) if self.bars.disable else self._bar(label)

    def stage_done(self, result: StageResult) -> None:
        """Print a line for a finished stage."""
        if self.quiet:
            return
        measured = result.validation
        facts = [
            f"{measured.metric} {wording.share(measured.estimate, measured.paired_test)}"
            f"{wording.unit(measured.paired_test)}",
            *([] if measured.latency is None else [f"p50 {wording.milliseconds(measured.latency.p50_ms)} ms"]),
            f"{wording.megabytes(measured.bytes)} MB",
            *([_outcome(result.verdicts)] if result.verdicts else []),
        ]
        self.console.print(f"{result.stage:<8}  {', '.join(facts)}")

    def _bar(self, label: str) -> Tick:
        tasks: list[TaskID] = []
        drawn = 0.0

        def tick(done: int, total: int) -> None:
            nonlocal drawn
            if done < total and monotonic() - drawn < REDRAW_S:
                return
            drawn = monotonic()
            if not tasks:
                tasks.append(self.bars.add_task(label, total=total))
            self.bars.update(tasks[0], completed=done, total=total)
            if done >= total:
                self.bars.remove_task(tasks.pop())

        return tick

    def _lines(self, label: str) -> Tick:
        begun = monotonic()
        due = begun + FIRST_LINE_S

        def tick(done: int, total: int) -> None:
            nonlocal begun, due
            now = monotonic()
            if done >= total:
                begun, due = now, now + FIRST_LINE_S
            elif now >= due:
                due = now + NEXT_LINE_S
                left = f", about {wording.duration((now - begun) * (total - done) / done)} left" if done else ""
                self.console.print(f"{label}: {100 * done / total:.0f} % of {total}{left}")

        return tick


def print_summary(report: Report, directory: Path) -> None:
    """Print the table, what the gates said of the last stage, and where everything is."""
    out = console()
    out.width = max(out.width, WIDTH)  # on a narrower terminal a figure that wraps is better than one that is cut off
    out.print(summary_table(report))
    out.print()
    for stage in report.stages:
        for verdict in stage.verdicts:
            if not verdict.passed or stage is report.last:
                out.print(_sign(passed=verdict.passed), f"{verdict.stage}: {verdict.message}")
    for note in report.notes:
        out.print(f"The search ended: {note}.")
    # A bundle of an earlier run may stand there: it is this run's only if every gate was passed.
    places = {"bundle": report.passed and directory / "bundle", "report": directory / "report.html"}
    for name, place in places.items():
        if place and place.exists():
            out.print(f"{name:<7} {place}")


def print_sealed(record: ArtifactRecord, directory: Path) -> None:
    """Print what one stage made when nothing was measured."""
    parameters = wording.count(record.parameters)
    console().print(f"{record.stage}: {parameters} parameters in {directory} ({record.digest[:12]})")
    console().print("Nothing was measured. Give --validation FILE to measure and judge it.")


def print_facts(facts: Mapping[str, Any], indent: int = 0) -> None:
    """Print a JSON object as lines of name and value."""
    out = console()
    names = [key if "." in key else key.replace("_", " ") for key in facts]  # the name of a module stays as it is
    width = max(map(len, names), default=0)
    for told, value in zip(names, facts.values(), strict=True):
        name = Text(" " * indent + told, style="bold")
        if isinstance(value, Mapping) and value:
            out.print(name)
            print_facts(value, indent + 2)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            out.print(name)
            for number, row in enumerate(value):
                cells = ", ".join(f"{inner} {_shown(item)}" for inner, item in row.items())
                out.print(f"{' ' * (indent + 2)}{number}: {cells}")
        else:
            out.print(f"{' ' * indent}{told:<{width}}  {_shown(value)}")


def print_left_out(recipe: str, keys: Sequence[str]) -> None:
    """Print what a shipped recipe does without, because the model reads images."""
    if keys:
        console(stderr=True).print(f"Images have no words: {', '.join(keys)} of the recipe {recipe} left out.")


def print_error(error: CompressError) -> None:
    """Print what was wrong, where, and what to do."""
    out = console(stderr=True)
    lines = {"gate failed" if isinstance(error, GateFailed) else "error": error.what}
    lines |= {name: text for name, text in (("where", error.where), ("try", error.fix)) if text}
    for name, text in lines.items():
        out.print(Text(f"{name}: ", style="bold red" if name == next(iter(lines)) else "bold"), text, sep="")


def summary_table(report: Report) -> Table:
    """Return the table of a run, a row per stage: the figures of `report.json`, in at most 80 columns.

    Columns that no stage has a figure for are left out.
    """
    stages, paired = report.stages, report.metric.paired_test

    def share(value: float) -> str:
        return wording.share(value, paired)

    on, test = ([getattr(stage.accuracy, role) for stage in stages] for role in ("validation", "test"))
    times, speedups = [stage.latency for stage in stages], [stage.speedup for stage in stages]
    columns = {
        "\nparams": [wording.count(stage.parameters) for stage in stages],
        "\nMB": [wording.megabytes(stage.bytes) for stage in stages],
        f"{report.metric.name[:16]}\n(95 % interval)": [
            f"{share(one.estimate)} ({share(one.low)}-{share(one.high)})" for one in on
        ],
        "\ntest": ["" if one is None else share(one.estimate) for one in test],
        "p50\nms": ["" if one is None else wording.milliseconds(one.p50_ms) for one in times],
        "p95\nms": ["" if one is None else wording.milliseconds(one.p95_ms) for one in times],
        "\nspeed-up": ["" if one is None else f"{wording.times(one.estimate)}x" for one in speedups],
    }
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("\nstage", no_wrap=True)
    shown = {head: cells for head, cells in columns.items() if any(cells)}
    for head in shown:
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("\ngates", no_wrap=True)
    for row, stage in enumerate(stages):
        gates = Text("chosen", style="bold green") if stage.stage == report.chosen else _gates(stage)
        table.add_row(stage.stage, *(cells[row] for cells in shown.values()), gates)
    return table


def _gates(stage: StageReport) -> Text:
    return Text("-") if stage.passed is None else _sign(passed=stage.passed)


def _sign(*, passed: bool) -> Text:
    return Text("passed", style="green") if passed else Text("FAILED", style="bold red")


def _outcome(verdicts: list[Verdict]) -> str:
    failed = [verdict.gate for verdict in verdicts if not verdict.passed]
    return f"FAILED at the {' and the '.join(failed)} gate" if failed else "passed"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return str(value)
