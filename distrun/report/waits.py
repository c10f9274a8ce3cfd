"""Who waited for whom: the verdict on a hang, the last collectives, and who came last to them.

In a collective each rank waits until the last one has called it. So the rank that waits least is
the one that the others wait for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
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
_LEAST_S, _LEAST_SHARE = 1e-3, 0.05
_WAITS = ("wait_s", "comm_wait_s")
"""Names under which scripts log for how long a rank has waited for others in a step."""


@dataclass(frozen=True)
class Straggler:
    """The rank that the others wait for."""

    rank: int
    sentence: str


@dataclass(frozen=True)
class Waits:
    """For how long each rank waits for the others."""

    by_rank: Mapping[int, float] = field(default_factory=dict)
    """Seconds, or shares of the time."""
    source: str = ""
    are_shares: bool = False

    def words(self, rank: int) -> str:
        """Return the wait of a rank, "" if it is not known."""
        return self._words(self.by_rank[rank]) if rank in self.by_rank else ""

    def straggler(self) -> Straggler | None:
        """Return the rank that waits least, if the others wait clearly longer."""
        if len(self.by_rank) < 2:
            return None
        rank = min(self.by_rank, key=lambda each: (self.by_rank[each], each))
        others = median(wait for each, wait in self.by_rank.items() if each != rank)
        least = _LEAST_SHARE if self.are_shares else _LEAST_S
        if others < least or others < _APART * self.by_rank[rank]:
            return None
        of = "of the time" if self.are_shares else "a step"
        own = f"rank {rank} waits least ({self.words(rank)} {of})"
        return Straggler(
            rank, f"{own}, the others {self._words(others)}: they wait for rank {rank}"
        )

    def _words(self, value: float) -> str:
        return f"{100 * value:.1f} %" if self.are_shares else f"{value * 1e3:.3g} ms"


def waits_of(
    numbers: Numbers,
    seen: Mapping[int, float],
    witnesses: Mapping[int, Witness],
    *,
    one_clock: bool,
) -> Waits:
    """Return how long each rank waits for the others, and where that is from.

    Args:
        numbers: The metrics; `wait_s` if several ranks have logged it.
        seen: For which share of the time each rank was seen to wait.
        witnesses: The records of collectives.
        one_clock: All ranks are on one machine, so that the times in those can be compared.
    """
    for name in _WAITS:
        told: dict[int, list[float]] = defaultdict(list)
        for line in numbers.of(name):
            told[line.owner] += line.finite
        if len(told) > 1:
            logged = {rank: sum(all_) / len(all_) for rank, all_ in told.items() if all_}
            return Waits(logged, f"mean of {name} over all steps")
    if seen:
        return Waits(seen, "by the times of the calls, looked at now and then", are_shares=True)
    if one_clock and (recorded := _from_records(witnesses)):
        return Waits(recorded, "mean over the recorded collectives")
    return Waits()


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
