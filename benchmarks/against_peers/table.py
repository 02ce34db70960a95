"""The table that is printed, and what is said below it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from against_peers.contest import AGAIN, TEACHER, Outcome
from against_peers.results import Finding
from against_peers.workloads import END_TO_END, LENGTHS


def table(models: Sequence[dict[str, Any]], shapes: Sequence[str], baseline: str) -> str:
    """Return one Markdown table, a row per model and number of threads; latencies are p50 / p95 in ms."""
    columns = ["model", "threads", "accuracy %", "points to the teacher", "MB", "build s", "memory MB", "load ms"]
    columns += [*shapes, "real lengths", f"times {baseline}, real lengths", "tokenise", "end to end"]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for model in models:
        for number, (threads, found) in enumerate(model["latency"].items()):
            still = _still(model) if number == 0 else [""] * 6
            cells = [model["name"] if number == 0 else "", str(threads), *still, *_times(found, shapes)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def below(outcome: Outcome) -> str:
    """Return the control, where a peer is faster or not shown to be slower, and what did not work."""
    ratios = [ratio["estimate"] for found in outcome.control.values() for ratio in found.values()]
    lines = [f"Control (ours fp32 against itself, all columns): {min(ratios):.3f} to {max(ratios):.3f} times."]
    for own in outcome.compared:
        mine = [finding for finding in outcome.findings if finding.own == own]
        rest = [finding for finding in mine if finding.verdict != "faster"]
        if mine:
            lines.append(f"{own}: faster than the peer in {len(mine) - len(rest)} of {len(mine)} comparisons.")
        lines += [f"- {_sentence(finding)}" for finding in rest]
    lines += [f"Failed: {failure.name}: {failure.step}: {failure.reason}" for failure in outcome.failures]
    return "\n".join(lines)


def _sentence(finding: Finding) -> str:
    ratio = finding.ratio
    verdict = {"slower": "SLOWER than", "undecided": "not shown to differ from"}[finding.verdict]
    threads = "1 thread" if finding.threads == 1 else f"{finding.threads} threads"
    return (
        f"{verdict} {finding.peer}, {finding.load}, {threads}: {ratio.estimate:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
    )


def _still(model: dict[str, Any]) -> list[str]:
    """Return the cells that do not depend on threads."""
    found, build = model["accuracy"], model["build_seconds"]
    gap = found["difference"]
    difference = f"{100 * gap['estimate']:+.2f} ({100 * gap['low']:+.2f} to {100 * gap['high']:+.2f})"
    return [
        f"{100 * found['estimate']:.2f}",
        "-" if model["name"] in (TEACHER, AGAIN) else difference,
        f"{model['bytes'] / 1e6:.1f}",
        "-" if build is None else f"{build:.0f}",
        f"{model['memory_mb']['peak']:.0f}",
        f"{model['load_ms']['p50']:.0f}",
    ]


def _times(found: dict[str, Any], shapes: Sequence[str]) -> list[str]:
    whole = found[END_TO_END]
    ratio = found[LENGTHS]["ratio"]
    faster = "-" if ratio is None else f"{ratio['estimate']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})"
    return [
        *(_both(found[shape]) if shape in found else "-" for shape in shapes),
        _both(found[LENGTHS]),
        faster,
        f"{whole['tokenise_p50_ms']:.3f}",
        _both(whole),
    ]


def _both(latency: dict[str, Any]) -> str:
    return f"{_three(latency['p50_ms'])} / {_three(latency['p95_ms'])}"


def _three(ms: float) -> str:
    """Return milliseconds with three figures that count."""
    return f"{ms:.3g}" if ms < 1000 else f"{ms:.0f}"
