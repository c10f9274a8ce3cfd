"""`metrics.jsonl`: it keeps every step up to a size, and then fewer and fewer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from distrun.runs.directory import METRICS_FIELDS
from distrun.supervise.files import AppendFile

_LIMIT_NBYTES = 64 << 20
"""Half a million steps of a rank, more than a plot can show."""
_MAX_SERIES = 1000


def _renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values under names that no field has, and no other value."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        own = name
        while own in METRICS_FIELDS or own in found or (own != name and own in values):
            own += "_"
        found[own] = value
    return found


@dataclass
class _Series:
    """The records of one rank with the same names of values, such as its evaluations."""

    every: int = 1
    """One record in so many is kept."""
    seen: int = 0
    nbytes: int = 0
    """Bytes written since a series was last thinned."""
    left_out: dict[str, Any] | None = None
    """The last record, if it is not in the file."""


class MetricsFile:
    """Writes steps and samples; above a limit, of the longest series, only one in 2, 4, 8, …

    So the file grows with the logarithm of the number of steps: by an eighth of the limit each
    time that their number doubles. Then the field `"every"` of each record says: it is one of
    so many. The first and the last record of each series are always kept.

    Args:
        file: Where they are written.
        say: Called with a message when the file begins to leave records out.
        limit_nbytes: Up to this size every record is kept.
    """

    def __init__(
        self, file: AppendFile, say: Callable[[str], None], limit_nbytes: int = _LIMIT_NBYTES
    ) -> None:
        self._file, self._say = file, say
        self._limit_nbytes = self._next_nbytes = limit_nbytes
        self._nbytes = 0
        self._series: dict[tuple[Any, ...], _Series] = {}

    def take(self, event: Mapping[str, Any]) -> None:
        """Add the numbers of a step, or a sample of a machine, which has `node` and `system`.

        Args:
            event: An event `metrics` or `system`.
        """
        if event["event"] == "metrics":
            own = {key: event[key] for key in ("rank", "time", "step", "total_steps")}
            values = _renamed(event["values"])
            self.write({**values, **own})
        else:
            own = {key: event[key] for key in ("node", "time")}
            self.write({**own, "system": event["values"]})

    def write(self, record: dict[str, Any]) -> None:
        """Add a record, or leave it out.

        Args:
            record: Its `rank` or `node`, and the names of its values, determine its series.
        """
        series = self._series_of(record)
        if series.seen % series.every == 0:
            series.left_out = None
            self._add(series, record)
        else:
            series.left_out = record
        series.seen += 1

    def close(self) -> None:
        """Add the last record of each series, if it was left out, and close the file."""
        last = [(each, each.left_out) for each in self._series.values() if each.left_out]
        for series, record in sorted(last, key=lambda each: float(each[1]["time"])):
            self._add(series, record)
        self._file.close()

    def _series_of(self, record: dict[str, Any]) -> _Series:
        key: tuple[Any, ...] = (record.get("rank"), record.get("node"), *record)
        if key not in self._series and len(self._series) >= _MAX_SERIES:
            key = ()  # shared by all others, so that names that change at every step take no memory
        return self._series.setdefault(key, _Series())

    def _add(self, series: _Series, record: dict[str, Any]) -> None:
        line = json.dumps(record if series.every == 1 else {**record, "every": series.every})
        self._file.write(line.encode() + b"\n")
        series.nbytes += len(line) + 1
        self._nbytes += len(line) + 1
        if self._nbytes >= self._next_nbytes:
            self._thin()

    def _thin(self) -> None:
        if self._next_nbytes == self._limit_nbytes:
            self._say(
                f"metrics.jsonl has {self._nbytes >> 20} MiB: from here on it keeps one step"
                ' in 2, later in 4, 8 and so on ("every"), and the last one'
            )
        self._next_nbytes = self._nbytes + max(1, self._limit_nbytes // 8)
        longest = max(each.nbytes for each in self._series.values())
        for each in self._series.values():
            if 2 * each.nbytes > longest:  # and not an evaluation now and then
                each.every *= 2
            each.nbytes = 0
