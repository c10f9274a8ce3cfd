"""Makes the report of a run, or of several runs side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distrun.api import runs
from distrun.errors import MachineError, UsageError
from distrun.report.compare import Comparison, compared
from distrun.report.contents import contents
from distrun.report.facts import Facts, read_facts
from distrun.report.page import rendered
from distrun.runs.directory import RunDirectory

__all__ = ["Comparison", "Report", "compare", "report", "save"]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Report:
    """A report as text."""

    run: RunDirectory
    html: str
    data: dict[str, Any]
    """The block of JSON that it contains, without its series."""


def report(word: str = "latest", *, runs_dir: Path = Path("runs"), tell: Tell = print) -> Report:
    """Return the report of a run, whether it goes on or has ended.

    Args:
        word: Its name, any part of it, a path, or `latest`.
        runs_dir: Where runs are recorded.
        tell: Called with a line about each run that cannot be read.

    Raises:
        UsageError: There is no such run, or it cannot be read.
    """
    facts = _facts(word, runs_dir, tell)
    found = contents(facts)
    return Report(facts.run, rendered("run.html", found), found["data"])


def compare(
    words: Sequence[str], *, runs_dir: Path = Path("runs"), tell: Tell = print
) -> tuple[Comparison, str]:
    """Return how runs differ, as data and as a page.

    Args:
        words: Two runs or more; the first one is what the others are compared with.
        runs_dir: Where runs are recorded.
        tell: Called with a line about each run that cannot be read.

    Raises:
        UsageError: There is no such run, one is named twice, or two are copies of one.
    """
    facts = [_facts(word, runs_dir, tell) for word in words]
    names = [each.record.run_id for each in facts]
    if len(set(names)) < len(names):
        again = next(name for name in names if names.count(name) > 1)
        paths = {str(f.run.path.resolve()) for f in facts if f.record.run_id == again}
        if len(paths) > 1:
            raise UsageError(f"{' and '.join(sorted(paths))} are copies of run {again}")
        raise UsageError(f"run {again} is named twice", "name different runs")
    found = compared(facts)
    return found, rendered("compare.html", found.variables)


def save(found: Report) -> Path:
    """Write a report into the directory of its run; return its path.

    Raises:
        MachineError: It cannot be written.
    """
    file = found.run.report
    try:
        file.replace_text(found.html)
    except OSError as error:
        raise MachineError(
            f"{file} cannot be written: {error.strerror or error}", "-o FILE names another place"
        ) from None
    return file.path


def _facts(word: str, runs_dir: Path, tell: Tell) -> Facts:
    run, record = runs.find(runs_dir, word, tell)
    runs.bring_up_to_date(run, record, tell)
    try:
        return read_facts(run)
    except (OSError, ValueError) as error:
        raise UsageError(f"{run.record} is not read: {error}") from None
