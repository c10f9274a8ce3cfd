"""Who waited for whom: the verdict on a hang, the last collectives, and who came last to them.

In a collective each rank waits until the last one has called it. So the rank that waits least is
the one that the others wait for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from distrun.diagnose.call_paths import CallPath, path_of, shared
from distrun.diagnose.hang.evidence import Witness
from distrun.diagnose.hang.timeline import Row, timeline
from distrun.report.lines import Numbers
from distrun.report.private import Clean

_LAST = 8
_LEAST_CALLS = 5
_APART = 2.0
"""A rank is a straggler if the others wait at least so many times as long, and it matters."""
_LEAST_S = 1e-3
_WAITS = ("wait_s", "comm_wait_s")
"""Names under which scripts log for how long a rank has waited for others in a step."""


@dataclass(frozen=True)
class Straggler:
    """The rank that the others wait for."""

    rank: int
    sentence: str


def mean_waits(
    numbers: Numbers, witnesses: Mapping[int, Witness], *, one_clock: bool
) -> tuple[dict[int, float], str]:
    """Return how long each rank waits for the others on average, and where that is from.

    Args:
        numbers: The metrics; `wait_s` if several ranks have logged it.
        witnesses: The records of collectives.
        one_clock: All ranks are on one machine, so that their times can be compared.
    """
    for name in _WAITS:
        told: dict[int, list[float]] = defaultdict(list)
        for line in numbers.of(name):
            told[line.owner] += line.finite
        if len(told) > 1:
            waits = {rank: sum(all_) / len(all_) for rank, all_ in told.items() if all_}
            return waits, f"mean of {name} over all steps"
    return (
        (_from_records(witnesses), "mean over the recorded collectives") if one_clock else ({}, "")
    )


def _from_records(witnesses: Mapping[int, Witness]) -> dict[int, float]:
    """Return for how long each rank has waited for the last one, by the times of the calls."""
    calls: dict[tuple[str, int], dict[int, int]] = defaultdict(dict)
    for rank, witness in witnesses.items():
        for call in witness.record.collectives if witness.record else ():
            if not call.is_p2p and call.done and call.created_ns:
                calls[call.group, call.seq][rank] = call.created_ns
    whole = [times for times in calls.values() if len(times) == len(witnesses) > 1]
    if len(whole) < _LEAST_CALLS:
        return {}
    return {
        rank: sum(max(times.values()) - times[rank] for times in whole) / len(whole) / 1e9
        for rank in witnesses
    }


def straggler(waits: Mapping[int, float]) -> Straggler | None:
    """Return the rank that waits least, if the others wait clearly longer."""
    if len(waits) < 2:
        return None
    rank = min(waits, key=lambda each: (waits[each], each))
    others = median(wait for each, wait in waits.items() if each != rank)
    if others < _LEAST_S or others < _APART * waits[rank]:
        return None
    return Straggler(
        rank,
        f"rank {rank} waits least ({_ms(waits[rank])} a step), the others {_ms(others)}:"
        f" they wait for rank {rank}",
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


def last_calls(witnesses: Mapping[int, Witness], clean: Clean) -> list[dict[str, Any]]:
    """Return the last collectives of the ranks, as cells of a table."""
    return [_cells(row, clean) for row in timeline(witnesses, _LAST)[-3 * _LAST :]]


def _cells(row: Row, clean: Clean) -> dict[str, Any]:
    return {
        "group": clean(row.group),
        "seq": row.seq,
        "op": clean(row.op),
        "tensor": clean(row.tensor),
        "called": row.called,
        "waiting": row.waiting,
        "missing": row.missing,
    }


def places(witnesses: Mapping[int, Witness], clean: Clean) -> list[dict[str, Any]]:
    """Return where the ranks were when they were last asked, the fewest ranks first."""
    found = {rank: path_of(w.stacks) for rank, w in witnesses.items() if w.stacks}
    return [
        {"ranks": ranks, "calls": _calls(path, clean), "called": clean(path.called)}
        for ranks, path in shared(found)
    ]


def _calls(path: CallPath, clean: Clean) -> list[str]:
    return [clean(f"{frame.file}:{frame.line} {frame.function}") for frame in path.user]
