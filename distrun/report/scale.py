"""Axes: round ticks, and numbers as people write them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_LOG_FROM = 2.3
"""Powers of ten between the least and the greatest value that make an axis logarithmic."""

_LEAST = 1e-300
"""Below that, a power of ten is 0."""


@dataclass(frozen=True)
class Axis:
    """From values to positions between 0 and 1."""

    low: float
    high: float
    log: bool = False
    unit: float = 1.0
    """Ticks are round in this unit."""

    def at(self, value: float) -> float:
        """Return the position of a value."""
        if self.log:
            return (math.log10(value) - self.low) / (self.high - self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, count: int) -> list[float]:
        """Return about so many round values."""
        if self.log:
            first, last = math.ceil(self.low), math.floor(self.high)
            every = max(1, math.ceil((last - first + 1) / count))
            return [10.0**power for power in range(first, last + 1, every)]
        values = _round_values(self.low / self.unit, self.high / self.unit, count)
        return [value * self.unit for value in values]


def axis(values: Sequence[float], *, may_be_log: bool = False, from_zero: bool = False) -> Axis:
    """Return an axis for finite values; all equal ones get some room."""
    low, high = min(values), max(values)
    if may_be_log and low > _LEAST and (reach := math.log10(high) - math.log10(low)) > _LOG_FROM:
        room = 0.03 * reach
        return Axis(math.log10(low) - room, math.log10(high) + room, log=True)
    if from_zero and low > 0:
        low = 0.0
    least = 0.005 * max(abs(low), abs(high))  # ticks have four digits
    room = max(0.04 * (high - low), (least - (high - low)) / 2) or 1.0
    return Axis(low - (0 if from_zero and low == 0 else room), high + room)


def exact_axis(low: float, high: float, unit: float = 1.0) -> Axis:
    """Return an axis without room at its ends."""
    return Axis(low, high, unit=unit) if high > low else Axis(low - 0.5, low + 0.5)


def time_unit(duration_s: float) -> float:
    """Return the unit in which ticks of an axis of time are round: a second, minute or hour."""
    return next((unit for unit in (3600.0, 60.0) if duration_s >= 2 * unit), 1.0)


def clock(value_s: float) -> str:
    """Return `42 s`, `3:07` or `2:03 h`."""
    whole = round(value_s)
    if whole < 120:
        return f"{value_s:.3g} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def _round_values(low: float, high: float, count: int) -> list[float]:
    width = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(width)) if width > 0 else 1.0
    step = next(power * each for each in (1, 2, 2.5, 5, 10) if power * each >= width * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 12) + 0.0 for number in range(first, min(last, first + 50) + 1)]


def number(value: float) -> str:
    """Return a number with four digits or more: `1.234`, `12300`, `1.2e-05`."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if 1e4 <= abs(value) < 1e7:
        return f"{value:.0f}"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    return f"{value:.3g}"


def tick(value: float) -> str:
    """Return a short number for an axis: `20k`, `0.5`, `1e-4`."""
    size = abs(value)
    if size == 0:
        return "0"
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= limit and size < limit * 1e3:
            return f"{value / limit:.4g}{letter}"
    if size < 1e-3 or size >= 1e15:
        digits, _, power = f"{value:.3e}".partition("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:.4g}"


def seconds(value: float) -> str:
    """Return `420 ms`, `42.1 s`, `3 min 07 s` or `2 h 03 min`."""
    if value < 60:
        return f"{value:.1f} s" if value >= 1 or not value else f"{value * 1e3:.3g} ms"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def byte_unit(nbytes_: float) -> tuple[int, str]:
    """Return the unit for so many bytes: its size and its name."""
    units = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
    return next((unit for unit in units if abs(nbytes_) >= unit[0]), (1, "B"))


def nbytes(value: float) -> str:
    """Return `12.3 GiB`."""
    size, name = byte_unit(value)
    return f"{value / size:.4g} {name}" if size > 1 else f"{value:.0f} B"
