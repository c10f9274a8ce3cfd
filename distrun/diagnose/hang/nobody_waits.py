"""The verdict where no rank waits for another in a collective."""

from __future__ import annotations

from distrun.diagnose.hang import words
from distrun.diagnose.hang.case import Case
from distrun.diagnose.hang.findings import HangVerdict

_EXCEPTIONAL = ("unreachable", "stopped", "debugger", "gil")


def exceptional(case: Case) -> HangVerdict | None:
    """Find ranks that cannot go on, whatever their program does."""
    found = tuple(r for r, each in case.standings.items() if each.kind in _EXCEPTIONAL)
    if not found:
        return None
    return HangVerdict(
        case.standing(found[0]).kind,
        f"{case.prefix}{case.whereabouts(found)}",
        found,
        **case.line_of(found),
    )


def all_input(case: Case) -> HangVerdict | None:
    """Find that all ranks wait for data."""
    alive = tuple(r for r, each in case.standings.items() if each.kind != "ended")
    if not alive or any(case.standing(rank).kind != "input" for rank in alive):
        return None
    who = f"all {len(alive)} ranks wait" if len(alive) > 1 else f"rank {alive[0]} waits"
    return HangVerdict(
        "all_input",
        f"{case.prefix}{who} for data: {case.whereabouts(alive)}",
        waiting=alive,
        **case.line_of(alive),
    )


def still_there(case: Case) -> HangVerdict | None:
    """Find ranks that make no progress after all others have ended."""
    alive = tuple(r for r, each in case.standings.items() if each.kind != "ended")
    ended = len(case.standings) - len(alive)
    if not case.idle_s or not alive or not ended:
        return None
    have = f"{ended} of {len(case.standings)} ranks {words.plural('has', ended)} ended"
    return HangVerdict(
        case.standing(alive[0]).kind,
        f"{case.prefix}{have}; {case.whereabouts(alive)}",
        alive,
        **case.line_of(alive),
    )


def rest(case: Case) -> HangVerdict:
    """Say where the ranks are: as a hang if the job makes no progress."""
    alive = tuple(r for r, each in case.standings.items() if each.kind != "ended")
    where = f": {case.whereabouts(alive)}" if alive else ""
    if not case.idle_s or not alive:
        return HangVerdict("none", f"no rank waits for another{where}")
    return HangVerdict(
        "idle",
        f"{case.prefix}no rank makes progress, and none waits for another"
        f"{words.lasting(case.idle_s)}{where}",
        **case.line_of(alive),
    )
