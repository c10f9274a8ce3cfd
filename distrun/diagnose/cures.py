"""What is known to help against an error, by its own words."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from distrun.diagnose.cure_table import CURES, Cure


def cure_of(
    exit_code: int, report: Mapping[str, Any] | None, last_words: str, rank: int | None = None
) -> str:
    """Return the cure of an error in a sentence, "" if none is known.

    Args:
        exit_code: Of the rank, -n for signal n.
        report: What it said of an exception that nobody caught.
        last_words: The end of what it printed, which counts without an exception.
        rank: Its number; None for one that had the launcher's stdin.
    """
    if report is None:
        text = f"exit code {exit_code}\n{last_words}"
    else:
        carriers = (str(words).removeprefix("carried by ") for words in report.get("carriers", ()))
        text = "\n".join((f"{report['type']}: {report['message']}", *carriers))
    found = find(text, rank)
    if found is None and report is None and exit_code == -signal.SIGBUS:
        found = find("signal: Bus error")
    return found[1] if found else ""


def find(text: str, rank: int | None = None) -> tuple[Cure, str] | None:
    """Return the first cure of the table whose pattern is in a text, with its words."""
    for cure in CURES:
        for_one_rank = "{rank}" in cure.words
        if (match := cure.pattern.search(text)) and not (for_one_rank and rank is None):
            return cure, match.expand(cure.words).replace("{rank}", str(rank))
    return None
