"""What was measured and judged, kept in a file: a line of JSON a launch."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from tests.faults.cases import Case
from tests.faults.judge import is_late, torchrun_names, wrong_with, wrong_with_torchrun
from tests.faults.run import Measured


@dataclass(frozen=True)
class Row:
    """One launch, judged."""

    case: str
    layout: str
    by: str
    codes: tuple[int | None, ...]
    seconds: float | None
    left: int
    """Processes 10 s after the end."""
    gone_s: float
    load: float
    names: str
    """Whom torchrun blames."""
    wrong: tuple[str, ...]
    """The sentences that do not hold, the time aside."""
    is_late: bool
    date: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.case, self.layout, self.by

    @property
    def all_wrong(self) -> list[str]:
        """What does not hold, the time included where the machine was not busy with others."""
        at_rest = self.load <= (os.cpu_count() or 1)
        return [*self.wrong, *(["late"] if self.is_late and at_rest and not self.wrong else [])]


def row_of(case: Case, measured: Measured) -> Row:
    """Judge one launch."""
    is_ours = measured.by == "distrun"
    judged = wrong_with(case, measured) if is_ours else wrong_with_torchrun(case, measured)
    seconds = None if measured.seconds is None else round(measured.seconds, 1)
    return Row(
        case=measured.case,
        layout=measured.layout,
        by=measured.by,
        codes=measured.codes,
        seconds=seconds,
        left=len(measured.left),
        gone_s=round(measured.gone_s, 1),
        load=round(measured.load, 1),
        names="" if is_ours else torchrun_names(case, measured),
        wrong=tuple(judged),
        is_late=is_late(case, measured),
        date=date.today().isoformat(),
    )


class Results:
    """The rows of a file; the newest of each case, layout and launcher counts.

    Args:
        path: The file, which need not be there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: dict[tuple[str, str, str], Row] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            fields = json.loads(line)
            lists = {name: tuple(fields[name]) for name in ("codes", "wrong")}
            row = Row(**(fields | lists))
            self.rows[row.key] = row

    def add(self, row: Row) -> None:
        """Add a row to the file."""
        self.rows[row.key] = row
        with self._path.open("a") as file:
            file.write(json.dumps(vars(row)) + "\n")

    def tidy(self) -> None:
        """Write the file anew, with the rows that count."""
        rows = [json.dumps(vars(self.rows[key])) for key in sorted(self.rows)]
        self._path.write_text("\n".join(rows) + "\n")
