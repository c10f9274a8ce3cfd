"""Writes the numbers of a run as a table for other programs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distrun.api import runs
from distrun.errors import MachineError, UsageError
from distrun.extras import missing
from distrun.report.story import read_story
from distrun.report.table import columns_of, rows_of, write_csv, write_parquet

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """What was written."""

    run_id: str
    rows: int
    columns: tuple[str, ...]


def export_metrics(
    word: str,
    *,
    csv: Path | None = None,
    parquet: Path | None = None,
    runs_dir: Path = Path("runs"),
    tell: Tell = print,
) -> Exported:
    """Write the metrics of a run as CSV, as Parquet, or both.

    Args:
        word: The run: its name, any part of it, a path, or `latest`.
        csv: The CSV file.
        parquet: The Parquet file; needs pyarrow.
        runs_dir: Where runs are recorded.
        tell: Called with a line about each run that cannot be read.

    Raises:
        UsageError: There is no such run, or it has no metrics.
        MachineError: pyarrow is missing, or a file cannot be written.
    """
    if parquet and (install := missing("pyarrow", "parquet")):
        raise MachineError("--parquet needs pyarrow", install)
    run, record = runs.find(runs_dir, word, tell)
    runs.bring_up_to_date(run, record, tell)
    try:
        columns = columns_of(run)
    except OSError:
        columns = []
    if not columns:
        raise UsageError(
            f"run {run.run_id} has logged no metrics",
            "distrun.train.metrics.log(step, loss=…) logs them",
        )
    attempts = [attempt.begin for attempt in read_story(run).attempts]
    rows = 0
    if csv:
        with _Draft(csv) as draft, draft.open("w", encoding="utf-8", errors="replace") as file:
            rows = write_csv(rows_of(run, attempts), columns, file)
    if parquet:
        with _Draft(parquet) as draft:
            rows = write_parquet(rows_of(run, attempts), columns, draft)
    return Exported(run.run_id, rows, tuple(columns))


class _Draft:
    """A file that gets its name when it is whole; after an error there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._draft = path.with_name(f".distrun-{os.urandom(8).hex()}")

    def __enter__(self) -> Path:
        return self._draft

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self._draft.replace(self._path)
        finally:
            self._draft.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise MachineError(f"{self._path} cannot be written: {error.strerror}") from None
