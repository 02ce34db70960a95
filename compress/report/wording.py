"""How figures are written for people: one wording for the report and for the terminal."""

from __future__ import annotations

import re
from datetime import datetime, timezone

from compress.record import Figure, Paired, Verdict
from compress.report.data import Accuracy, Span

MINUS, DASH, TIMES, NONE = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{MULTIPLICATION SIGN}", "\N{EM DASH}"


def title(metric: str) -> str:
    """Return a metric's name as a heading: `macro_f1` is Macro F1."""
    return metric.replace("_", " ").capitalize().replace("f1", "F1")


def count(value: int) -> str:
    """Return a count in three figures: 22.7 M, 840 k, 512."""
    for size, unit in ((1_000_000_000, " G"), (1_000_000, " M"), (1_000, " k")):
        if value >= 0.9995 * size:
            return figures(value / size) + unit
    return str(value)


def grouped(value: int) -> str:
    """Return a count in full, in groups of three digits: 14 580."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def figures(value: float) -> str:
    """Return a positive number with three figures or all before the point: 0.0123, 1.23, 12.3, 1234."""
    if value == 0:
        return "0"
    decimals = sum(abs(value) < limit for limit in (99.95, 9.995, 0.9995))  # where rounding reaches the next power
    return signed(value, decimals) if value < 0 else f"{value:.{decimals}f}"


def megabytes(value: int) -> str:
    """Return bytes as MB of a million bytes, without the unit."""
    return figures(value / 1e6)


def signed(value: float, decimals: int, *, plus: str = "") -> str:
    """Return a number with a true minus sign, and `plus` before a positive one."""
    text = f"{abs(value):.{decimals}f}"
    if float(text) == 0.0:
        return text
    return (MINUS if value < 0 else plus) + text


def share(value: float, paired: Paired) -> str:
    """Return a metric: in percent without the sign for proportions (92.4, 100), else as it is."""
    if paired == "proportions":
        return "100" if value >= 0.9995 else f"{100 * value:.1f}"
    return f"{value:.4f}"


def unit(paired: Paired) -> str:
    """Return what follows a metric."""
    return " %" if paired == "proportions" else ""


def accuracy_interval(value: Accuracy | Figure, paired: Paired) -> str:
    """Return 89.9-92.4, with an en dash."""
    return f"{share(value.low, paired)}{DASH}{share(value.high, paired)}"


def points(value: float, paired: Paired) -> str:
    """Return a difference with its sign: in points for proportions, else as it is."""
    return signed(100 * value, 2, plus="+") if paired == "proportions" else signed(value, 4, plus="+")


def points_interval(value: Span, paired: Paired) -> str:
    """Return the interval of a difference: -1.24 to +0.06."""
    high = NONE if value.high is None else points(value.high, paired)
    return f"{points(value.low, paired)} to {high}"


def times(value: float) -> str:
    """Return a ratio without its sign: 0.99, 6.81, 12.3. Beyond two decimals there is only noise."""
    return f"{value:.2f}" if 0 <= value < 9.995 else figures(value)


def ratio(value: float) -> str:
    """Return 6.81 with a times sign after it."""
    return f"{times(value)}{TIMES}"


def ratio_interval(value: Span) -> str:
    """Return 6.62-7.01, with an en dash; open where there is no upper end."""
    return f"{times(value.low)}{DASH}{'' if value.high is None else times(value.high)}"


def milliseconds(value: float | None) -> str:
    """Return a latency in ms without the unit, or a dash for none."""
    return NONE if value is None else figures(value)


def duration(seconds: float) -> str:
    """Return 0.4 s, 42 s, 3 min 20 s, 1 h 05 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def moment(stamp: str) -> str:
    """Return an ISO 8601 time as 2026-01-02 03:04 UTC; what is none stays as it is."""
    try:
        return (
            datetime.fromisoformat(stamp.replace("Z", "+00:00")).astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        )
    except ValueError:
        return stamp


def said(verdict: Verdict) -> str:
    """Return a verdict's sentence without the gate's name before it, with true minus signs."""
    text = verdict.message.removeprefix(f"{verdict.gate} gate: ")
    text = re.sub(r"(?<![\w-])-(?=\d)", MINUS, text[:1].upper() + text[1:])
    return re.sub(r"(?<=\d) (?=%|pt\b|ms\b|MB\b)", "\N{NO-BREAK SPACE}", text)
