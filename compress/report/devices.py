"""What devices told of the bundle: what it costs there, and whether it computes the same."""

from __future__ import annotations

from collections.abc import Iterator

from compress.device_record import DeviceReport
from compress.report import wording
from compress.report.data import Report
from compress.report.markup import Markup, el
from compress.report.tables import Cell, section, table


def devices(report: Report) -> Markup | None:
    """Return the table of devices, and times by length where they were taken."""
    told = report.devices
    if not told:
        return None
    heads = ["Device", "Threads", "p50,\N{NO-BREAK SPACE}ms", "p90,\N{NO-BREAK SPACE}ms", "p99,\N{NO-BREAK SPACE}ms"]
    heads += ["At the gate, ms", "Load, ms", "Memory,\N{NO-BREAK SPACE}MB", "Largest difference", "Runtime"]
    said = (
        "Sent back by compress bench BUNDLE --device-report: times of the golden inputs at batch 1, the most memory of "
        "a process that does nothing else, and how far the outputs are from the golden ones."
    )
    rows = [list(_row(one)) for one in told]
    numbers = set(range(1, len(heads) - 1))
    whole = table(heads, rows, label="Devices", class_="stacked", numbers=numbers)
    return section("On devices", said, whole, _by_length(told))


def _row(one: DeviceReport) -> Iterator[Cell]:
    yield el("span", one.cpu, el("small", f" {one.os}"))
    yield f"{one.threads} of {one.cores}"
    yield from (wording.milliseconds(ms) for ms in (one.golden.p50_ms, one.golden.p90_ms, one.golden.p99_ms))
    yield wording.milliseconds(one.promised_p50_ms)
    yield wording.milliseconds(one.load_ms)
    yield wording.NONE if one.peak_bytes is None else wording.megabytes(one.peak_bytes)
    gap = f"{one.max_abs:.2g} of {one.tolerance:.2g}"
    yield gap if one.agrees else el("strong", f"\N{BALLOT X} {gap}")
    yield f"{one.onnxruntime} {' '.join(one.flags or ())}".strip()


def _by_length(told: list[DeviceReport]) -> Markup | None:
    lengths = sorted({row.tokens for one in told for row in one.lengths})
    if not lengths:
        return None
    rows: list[list[Cell]] = []
    for one in told:
        times = {row.tokens: row.p50_ms for row in one.lengths}
        rows.append([one.cpu, *(wording.milliseconds(times.get(tokens)) for tokens in lengths)])
    heads = ["Median in ms, by tokens", *map(str, lengths)]
    return table(heads, rows, label="Devices by length", class_="compact", numbers=set(range(1, len(heads))))
