"""The attempts of a run, as its record has them, and what they were worth."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from distrun.runs.record import RunRecord, is_int, is_number


def goodput(record: RunRecord) -> float | None:
    """Return the share of a run's time that was spent in steps that count; None if unknown.

    Steps that were done again after a failure count once. The rest is start, waiting, restarts and
    lost steps.
    """
    useful = [each.get("useful_s") for each in record.history]
    known = [value for value in useful if is_number(value)]
    total_s = (record.ended_at or time.time()) - record.started_at
    return min(1.0, sum(known) / total_s) if known and total_s > 0 else None


def attempt_rows(record: RunRecord) -> Iterator[tuple[str, ...]]:
    """Yield for each attempt: its number, start, seconds, nodes, steps, lost steps, and the end."""
    for each in record.history:
        began = each.get("began_at")
        start = time.strftime("%H:%M:%S", time.localtime(began)) if is_number(began) else "?"
        nodes = each.get("nodes")
        yield (
            str(each.get("attempt", "?")),
            start,
            f"{_number(each, 'duration_s'):.0f} s",
            ",".join(map(str, nodes)) if isinstance(nodes, list) else "?",
            _steps(each),
            str(each.get("lost_steps") or ""),
            f"{each.get('failure') or each.get('outcome') or 'ended'}",
        )


def _number(each: Mapping[str, Any], name: str) -> float:
    value = each.get(name)
    return float(value) if is_number(value) else 0.0


def _steps(each: Mapping[str, Any]) -> str:
    begun, last, saved = each.get("begun_at"), each.get("last_step"), each.get("saved_step")
    if not is_int(last):
        return ""
    begun = begun if is_int(begun) else 0
    shown = f"{begun + 1}-{last}"
    return shown if saved is None else f"{shown}, saved {saved}"
