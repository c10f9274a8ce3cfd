"""Finds the cure of an error by its text."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from distrun.diagnose.cure_table import CURES, Cure

_WORKER_ENDED = "exited unexpectedly"


def cure_of(
    exit_code: int, report: Mapping[str, Any] | None, last_words: str, rank: int | None = None
) -> str:
    """Return the cure of an error as a sentence, "" if none is known.

    Args:
        exit_code: The exit code of the rank, -n for signal n.
        report: Its report of an uncaught exception.
        last_words: The end of its output, used if there is no exception, or if that only says
            that a worker has ended.
        rank: The rank; None if it had the launcher's stdin.
    """
    if report is None:
        text = f"exit code {exit_code}\n{last_words}"
    else:
        carriers = (str(words).removeprefix("carried by ") for words in report.get("carriers", ()))
        text = "\n".join((f"{report['type']}: {report['message']}", *carriers))
        if _WORKER_ENDED in text:  # what the worker has printed of itself says why
            text = f"{text}\n{last_words}"
    found = find(text, rank)
    if found is None and report is None and exit_code == -signal.SIGBUS:
        found = find("signal: Bus error")
    return found[1] if found else ""


def find(text: str, rank: int | None = None) -> tuple[Cure, str] | None:
    """Return the first cure of the table whose pattern matches a text, with groups filled in."""
    for cure in CURES:
        for_one_rank = "{rank}" in cure.words
        if (match := cure.pattern.search(text)) and not (for_one_rank and rank is None):
            return cure, match.expand(cure.words).replace("{rank}", str(rank))
    return None
