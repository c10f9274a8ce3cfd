"""The numbers of a run as rows of a table: one for each call of a rank, or sample of a node."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from distrun.report.lines import number, records, with_attempts
from distrun.runs.directory import METRICS_FIELDS, RunDirectory
from distrun.runs.record import is_int

KEYS = ("kind", "node", "rank", "attempt", "step", "time")
"""The first columns. `kind` is `step`, or `system` for a sample of a machine."""
_OPEN = 1024
"""So many rows may get more values."""
_PART = 20_000
"""Rows of a row group of Parquet."""


def columns_of(run: RunDirectory) -> list[str]:
    """Return the columns: the keys, and the name of every value in the order of its first record.

    Raises:
        OSError: The run has no metrics, or they cannot be read.
    """
    names: dict[str, None] = {}
    for record in records(run.metrics):
        names.update(dict.fromkeys(_values(record)))
    return [*KEYS, *names]


def rows_of(run: RunDirectory, attempts: list[float]) -> Iterator[dict[str, Any]]:
    """Yield the rows; a value that was not finite is NaN or infinite.

    Args:
        run: The run.
        attempts: When each attempt began, in seconds since the epoch.

    Raises:
        OSError: The run has no metrics, or they cannot be read.
    """
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for attempt, record in with_attempts(records(run.metrics), attempts):
        own = {key: record.get(key) for key in ("node", "rank", "step", "time")}
        if not all(own[key] is None or is_int(own[key]) for key in ("node", "rank", "step")):
            continue
        row = {**own, "kind": "system" if "system" in record else "step", "attempt": attempt + 1}
        # A call with many values is several records, between which those of other ranks may come.
        rows.setdefault(tuple(row.values()), row).update(_values(record))
        if len(rows) > _OPEN:
            yield rows.pop(next(iter(rows)))
    yield from rows.values()


def _values(record: dict[str, Any]) -> dict[str, float]:
    told = record["system"] if isinstance(record.get("system"), dict) else record
    found = {name: number(value) for name, value in told.items() if name not in METRICS_FIELDS}
    return {name: value for name, value in found.items() if value is not None}


def write_csv(rows: Iterator[dict[str, Any]], columns: list[str], file: TextIO) -> int:
    """Write a line of heads and a line a row; an empty cell is a value that was not logged.

    Returns:
        The number of rows.
    """
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    count = 0
    for row in rows:
        writer.writerow(row)
        count += 1
    return count


def write_parquet(rows: Iterator[dict[str, Any]], columns: list[str], path: Path) -> int:
    """Write an Apache Parquet file (https://arrow.apache.org/docs/python/parquet.html).

    Returns:
        The number of rows.

    Raises:
        ImportError: pyarrow is not installed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"kind": pa.string(), **dict.fromkeys(("node", "rank", "attempt", "step"), pa.int64())}
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in columns])
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        part: list[dict[str, Any]] = []
        for row in rows:
            part.append(row)
            count += 1
            if len(part) == _PART:
                writer.write_table(pa.Table.from_pylist(part, schema))
                part = []
        writer.write_table(pa.Table.from_pylist(part, schema))
    return count
