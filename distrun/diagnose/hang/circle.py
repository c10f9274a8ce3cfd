"""The verdict on ranks that wait for one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distrun.diagnose.hang import words
from distrun.diagnose.hang.blocked import Blocked, blocked_at, distinct
from distrun.diagnose.hang.case import Case
from distrun.diagnose.hang.findings import HangVerdict, Kind

_SHOWN = 4


def in_a_circle(case: Case, cycle: tuple[int, ...], blocked: Mapping[int, Blocked]) -> HangVerdict:
    """Draw a cycle of ranks, and find who is wrong in it: where two calls meet, the fewer ranks.

    Args:
        case: The job.
        cycle: Ranks each of which waits for the next, and the last for the first.
        blocked: What each rank waits in.
    """
    drawn = f"rank {cycle[0]}"
    for rank, target in zip(cycle, (*cycle[1:], cycle[0]), strict=True):
        drawn += f" -> ({blocked[rank].label}) rank {target}"
    sides = distinct(blocked[rank] for rank in cycle)
    parts = "; ".join(_part(case, side) for side in sides[:_SHOWN])
    kind, what = _kind(sides)
    many, few = _majority(sides)
    culprits = few.ranks if few else cycle
    doubt = "" if few else "; cannot tell which is wrong"
    wait = many.wait
    return HangVerdict(
        kind,
        f"{case.prefix}{what}: {drawn}; {parts}{words.lasting(case.idle_of(cycle))}{doubt}",
        tuple(sorted(culprits)),
        is_certain=few is not None,
        group=(wait.group.desc or wait.group.name) if wait else "",
        op=wait.op if wait else many.label,
        seq=wait.seq if wait else 0,
        waiting=tuple(sorted(blocked)),
        cycle=cycle,
        **case.line_of(sorted(culprits)),
    )


def _part(case: Case, side: Blocked) -> str:
    verb = words.plural("is", len(side.ranks))
    return f"{words.named(side.ranks)} {verb} in {side.doing}{blocked_at(case, side)}"


def _kind(sides: Sequence[Blocked]) -> tuple[Kind, str]:
    """Return the kind of a cycle: one with a collective in it has a send or receive too many."""
    transfer = next((side.transfer for side in sides if side.transfer), None)
    if transfer is None and len(sides) == 2 and _are_of_the_same_ranks(sides):
        return "cycle", "ranks use two groups in different order"
    if transfer is None or all(side.transfer for side in sides):
        return "cycle", "ranks wait for one another"
    return "p2p", f"a {transfer.op} without a {'send' if transfer.op == 'recv' else 'recv'}"


def _majority(sides: Sequence[Blocked]) -> tuple[Blocked, Blocked | None]:
    """Return the side to name, and the one that is wrong; None if that cannot be told.

    Of groups of different ranks it cannot: those in the larger one may have left out the smaller.
    """
    if len(sides) == 2 and _are_of_the_same_ranks(sides):
        few, many = sorted(sides, key=lambda side: len(side.ranks))
        if len(few.ranks) < len(many.ranks):
            return many, few
    return next((side for side in sides if side.wait), sides[0]), None


def _are_of_the_same_ranks(sides: Sequence[Blocked]) -> bool:
    """Return whether all groups that ranks wait in are of the same ranks."""
    return len({frozenset(side.wait.members) for side in sides if side.wait}) <= 1
