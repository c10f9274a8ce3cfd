"""The numbers of a run: `metrics.jsonl` as lines of values over steps and over time."""

from __future__ import annotations

import json
import math
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from distrun.runs.directory import METRICS_FIELDS, RunDirectory
from distrun.runs.files import RunFile

_MAX_LINES = 20_000
"""Names that change at every step must not take all memory."""
_GREATEST = 1e300
_WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@dataclass
class Line:
    """The values of one name, of one rank or node, in one attempt."""

    name: str
    owner: int
    """The rank; of a system metric the node."""
    attempt: int
    steps: array[float] = field(default_factory=lambda: array("d"))
    times: array[float] = field(default_factory=lambda: array("d"))
    """Seconds since the epoch."""
    values: array[float] = field(default_factory=lambda: array("d"))
    """NaN and infinite values are kept."""

    def add(self, step: float, time: float, value: float) -> None:
        """Add a value."""
        self.steps.append(step)
        self.times.append(time)
        self.values.append(value)

    @property
    def finite(self) -> list[float]:
        """Its values that are finite."""
        return [value for value in self.values if math.isfinite(value)]


@dataclass
class Numbers:
    """What a run has measured."""

    lines: dict[tuple[str, int, int], Line] = field(default_factory=dict)
    """(name, rank, attempt) -> the values that ranks have logged."""
    system: dict[tuple[str, int, int], Line] = field(default_factory=dict)
    """(name, node, 0) -> what was sampled on a node."""
    total_steps: int | None = None
    last_at: float = 0.0
    """The time of the last record."""
    left_out: int = 0
    """How many records are not in `lines`, because there are too many names."""
    thinned: int = 1
    """The file has one record in so many, or more."""

    def of(self, name: str) -> list[Line]:
        """Return the lines of a name, by rank and attempt."""
        return [line for (own, *_), line in sorted(self.lines.items()) if own == name]

    def last(self, name: str) -> float | None:
        """Return the last value of a name: of the lowest rank of the last attempt that has one."""
        own = [line for line in self.of(name) if line.values]
        if not own:
            return None
        return max(own, key=lambda line: (line.attempt, -line.owner)).values[-1]

    @property
    def names(self) -> list[str]:
        """The names of what ranks have logged, in the order of their first record."""
        return list(dict.fromkeys(name for name, *_ in self.lines))


def records(file: RunFile) -> Iterator[dict[str, Any]]:
    """Yield the records of `metrics.jsonl`; lines that a full disk has cut are passed over.

    Raises:
        OSError: It cannot be read.
    """
    with open(file.open(os.O_RDONLY), "rb") as opened:
        for line in opened:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict) and is_number(record.get("time")):
                yield record


def with_attempts(
    told: Iterable[dict[str, Any]], attempts: Sequence[float]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each record with the number of its attempt, from 0 on.

    Args:
        told: The records, the oldest first.
        attempts: When each attempt began, in seconds since the epoch.
    """
    attempt = 0
    for record in told:
        while attempt + 1 < len(attempts) and record["time"] >= attempts[attempt + 1]:
            attempt += 1
        yield attempt, record


def read_numbers(run: RunDirectory, attempts: list[float]) -> Numbers:
    """Read the metrics of a run.

    Args:
        run: The run.
        attempts: When each attempt began, in seconds since the epoch.
    """
    found = Numbers()
    try:
        for attempt, record in with_attempts(records(run.metrics), attempts):
            if "system" in record:
                _add_system(found, record, float(record["time"]))
            else:
                _add(found, record, float(record["time"]), attempt)
    except OSError:
        pass  # the run has logged nothing
    return found


def _add(found: Numbers, record: dict[str, Any], at: float, attempt: int) -> None:
    rank, step = record.get("rank"), record.get("step")
    if type(rank) is not int or not is_number(step):
        return
    found.last_at = max(found.last_at, at)
    if type(total := record.get("total_steps")) is int:
        found.total_steps = total
    if type(every := record.get("every")) is int:
        found.thinned = max(found.thinned, every)
    for name, told in record.items():
        value = number(told)
        if name in METRICS_FIELDS or value is None:
            continue
        key = name, rank, attempt
        if key not in found.lines and len(found.lines) >= _MAX_LINES:
            found.left_out += 1
            continue
        line = found.lines.get(key)
        if line is None:
            line = found.lines[key] = Line(name, rank, attempt)
        line.add(step, at, value)


def _add_system(found: Numbers, record: dict[str, Any], at: float) -> None:
    node, values = record.get("node"), record.get("system")
    if type(node) is not int or not isinstance(values, dict):
        return
    found.last_at = max(found.last_at, at)
    for name, told in values.items():
        key = str(name), node, 0
        value = number(told)
        if value is None or (key not in found.system and len(found.system) >= _MAX_LINES):
            continue
        found.system.setdefault(key, Line(str(name), node, 0)).add(at, at, value)


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value of JSON is a finite number of a usual size."""
    return type(value) in (int, float) and abs(value) < 1e18 and value == value


def number(told: Any) -> float | None:
    """Return a value of `metrics.jsonl` as a number; None if it is none.

    Numbers that cannot be drawn, because differences of them overflow, count as infinite.
    """
    if isinstance(told, str):
        return _WORDS.get(told)
    if type(told) not in (int, float):
        return None
    if abs(told) > _GREATEST:
        return math.inf if told > 0 else -math.inf
    return float(told)
