"""Scales and ticks of the drawings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Scale:
    """A map from values to positions in a drawing, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the position of a value; values outside are held at the ends."""
        low, high, value = (math.log(x) if self.log else x for x in (self.low, self.high, max(value, self._least)))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    @property
    def _least(self) -> float:
        return self.low if self.log else -math.inf

    def ticks(self, count: int = 5) -> list[float]:
        """Return about `count` round values within the scale, at least one."""
        return log_ticks(self.low, self.high, count) if self.log else linear_ticks(self.low, self.high, count)


def linear_ticks(low: float, high: float, count: int) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten between `low` and `high`."""
    if not high > low:
        return [low]
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)] or [low]


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """Return 1, 2 and 5 times powers of ten between `low` and `high`; fewer kinds where there would be too many."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    for factors in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        ticks = [f * 10.0**p for p in powers for f in factors if low * 0.999 <= f * 10.0**p <= high * 1.001]
        if len(ticks) <= count + 1:
            return ticks or [low]
    return ticks


def padded(low: float, high: float, *, share: float = 0.08) -> tuple[float, float]:
    """Return a wider range, never empty."""
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room


def label(value: float, step: float) -> str:
    """Return a tick's value with as many decimals as steps of `step` need."""
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    text = f"{abs(value):.{min(decimals, 6)}f}"
    return ("\N{MINUS SIGN}" if value < 0 and float(text) else "") + text
