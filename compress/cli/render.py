"""What a person sees: one progress display, the summary table, facts and errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, final

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from compress.record import ArtifactRecord, Measurement, RunResult, StageResult
from compress.statistics import ratio_interval
from models.errors import CompressError, GateFailed

WIDTH = 100
REDRAW_S = 0.1


@final
class LiveProgress:
    """One display of progress on stderr: bars with the time left on a terminal, else a line per piece of work."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True, highlight=False)
        self.bars = Progress(
            TextColumn("{task.description:<20}"),
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

    def __call__(self, label: str) -> Callable[[int, int], None]:
        """Return a function that takes (done, total) for a named piece of work."""
        task: list[TaskID] = []
        drawn = [0.0]

        def tick(done: int, total: int) -> None:
            now = time.monotonic()
            if done < total and now - drawn[0] < REDRAW_S:
                return
            drawn[0] = now
            if not task:
                task.append(self.bars.add_task(escape(label), total=total))
            self.bars.update(task[0], completed=done, total=total)
            if done >= total:
                self.bars.remove_task(task.pop())

        return tick

    def stage_done(self, result: StageResult) -> None:
        """Print a line for a finished stage."""
        if self.quiet:
            return
        measured = result.validation
        speed = "" if measured.latency is None else f", p50 {measured.latency.p50_ms:.2f} ms"
        passed = all(verdict.passed for verdict in result.verdicts)
        verdict = "" if not result.verdicts else ", passed" if passed else ", FAILED"
        self.console.print(
            f"{result.stage:<9} {measured.metric} {measured.estimate:.1%}{speed}, {_megabytes(measured)} MB{verdict}"
        )


def summary_table(result: RunResult) -> Table:
    """Return the table of a run: a row per stage."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    for heading in ("params", "MB", "accuracy (95 %)", "test", "p50 ms", "p95 ms", "speed-up"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for stage in result.stages:
        measured = stage.validation
        table.add_row(
            stage.stage,
            f"{stage.artifact.parameters / 1e6:.1f} M",
            _megabytes(measured),
            f"{measured.estimate * 100:.1f} ({measured.low * 100:.1f}-{measured.high * 100:.1f})",
            "" if stage.test is None else f"{stage.test.estimate * 100:.1f}",
            "" if measured.latency is None else f"{measured.latency.p50_ms:.2f}",
            "" if measured.latency is None else f"{measured.latency.p95_ms:.2f}",
            speedup(measured),
            _verdict(stage),
        )
    return table


def speedup(measured: Measurement) -> str:
    """Return the speed-up over the teacher as it is shown."""
    if measured.latency is None or measured.baseline_latency is None:
        return ""
    return f"{ratio_interval(measured.baseline_latency.rounds, measured.latency.rounds).estimate:.2f}x"


def print_summary(result: RunResult, directory: Path) -> None:
    """Print the table, the verdicts and where everything is."""
    console = Console(highlight=False, soft_wrap=False)
    console.print(summary_table(result))
    for stage in result.stages:
        for verdict in stage.verdicts:
            sign = "[green]passed[/]" if verdict.passed else "[red]FAILED[/]"
            console.print(f"{sign} {stage.stage}: {escape(verdict.message)}")
    for name in ("bundle", "report.html"):
        if (directory / name).exists():
            console.print(f"{name}: {directory / name}")


def print_sealed(record: ArtifactRecord, directory: Path) -> None:
    """Print what one stage made when nothing was measured."""
    console = Console(highlight=False)
    console.print(f"{record.stage}: {record.parameters / 1e6:.1f} M parameters in {directory} ({record.digest[:12]})")
    console.print("Nothing was measured. Give --validation FILE to measure and judge it.")


def print_facts(facts: Mapping[str, Any], indent: int = 0) -> None:
    """Print a JSON object as lines of name and value."""
    console = Console(highlight=False)
    for key, value in facts.items():
        name = " " * indent + key.replace("_", " ")
        if isinstance(value, Mapping):
            console.print(f"[bold]{name}[/]")
            print_facts(value, indent + 2)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            console.print(f"[bold]{name}[/]")
            for number, row in enumerate(value):
                cells = ", ".join(f"{inner} {_shown(item)}" for inner, item in row.items())
                console.print(f"{' ' * (indent + 2)}{number}: {escape(cells)}")
        else:
            console.print(f"{name:<24} {escape(_shown(value))}")


def print_error(error: CompressError) -> None:
    """Print what was wrong, where, and what to do."""
    lines = [escape(error.what)]
    if error.where:
        lines.append(f"[bold]where[/]  {escape(error.where)}")
    if error.fix:
        lines.append(f"[bold]try[/]    {escape(error.fix)}")
    title = "gate failed" if isinstance(error, GateFailed) else "error"
    Console(stderr=True, highlight=False).print(Panel("\n".join(lines), title=title, border_style="red", width=WIDTH))


def _megabytes(measured: Measurement) -> str:
    return f"{measured.bytes / 1e6:.1f}"


def _verdict(stage: StageResult) -> str:
    if not stage.verdicts:
        return "reference"
    failed = [verdict.gate for verdict in stage.verdicts if not verdict.passed]
    return f"[red]failed: {', '.join(failed)}[/]" if failed else "[green]passed[/]"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)
