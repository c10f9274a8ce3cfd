"""What each rank waits for, in a collective or in a send or receive."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from distrun.diagnose.hang import words
from distrun.diagnose.hang.case import Case
from distrun.diagnose.hang.point_to_point import Transfer, transfers_of
from distrun.diagnose.hang.waiting import Wait


@dataclass(frozen=True)
class Blocked:
    """A collective, or a send or receive, and the ranks that wait in it for others."""

    on: tuple[int, ...]
    ranks: tuple[int, ...]
    wait: Wait | None = None
    transfer: Transfer | None = None

    @property
    def label(self) -> str:
        """Its group, or `recv`, in a drawn cycle."""
        if self.transfer:
            return self.transfer.op
        return words.short_name(self.wait.group) if self.wait else ""

    @property
    def doing(self) -> str:
        """Return `all_reduce #7 of group dp`, or `recv from rank 0`."""
        if self.transfer:
            return self.transfer.words
        assert self.wait  # it is one of both
        return (
            f"{words.numbered(self.wait.op, self.wait.seq)} of {words.group_name(self.wait.group)}"
        )


def distinct(found: Iterable[Blocked]) -> list[Blocked]:
    """Return each once: the ranks that wait in one collective share it."""
    return list({id(each): each for each in found}.values())


def blocked_at(case: Case, blocked: Blocked) -> str:
    """Return ` at train.py:88 (backward)` for the ranks that wait."""
    if blocked.wait:
        return case.callers(blocked.wait, blocked.ranks)
    return words.located(case.standing(blocked.ranks[0]).calls)


def also(case: Case, blocked: Blocked) -> str:
    """Return `rank 2 waits in all_gather #1 of group tp at train.py:8 (f) for rank 3`."""
    wait = words.plural("waits", len(blocked.ranks))
    where = f"{blocked.doing}{blocked_at(case, blocked)}"
    return f"{words.named(blocked.ranks)} {wait} in {where} for {words.named(blocked.on)}"


def blocked_ranks(case: Case) -> dict[int, Blocked]:
    """Return what each waiting rank waits in.

    A rank with several pending collectives waits in the one that its main thread is in, else in
    the first that it has called. A rank that others wait for, and that is at something else, does
    not wait, whatever is pending on it.
    """
    transfers = transfers_of(case.witnesses)
    found = {
        rank: Blocked((each.peer,), (rank,), transfer=each) for rank, each in transfers.items()
    }
    over = case.is_over
    awaited = {rank for wait in case.waits for rank in wait.missing}
    awaited |= {each.peer for each in transfers.values()}
    for wait in sorted(case.waits, key=_began):
        here = Blocked(wait.missing, wait.waiting, wait=wait)
        for rank in wait.waiting if wait.missing else ():
            if case.standing(rank).kind == "ended" and not over:
                continue
            if rank in awaited and not case.standing(rank).may_wait:
                continue
            if rank not in found or (
                rank not in transfers and _calls_in(case, rank) == wait.group.name
            ):
                found[rank] = here
    return found


def _began(wait: Wait) -> int:
    return min((wait.calls[r].created_ns for r in wait.waiting if r in wait.calls), default=0)


def _calls_in(case: Case, rank: int) -> str:
    record = case.witnesses[rank].record
    return record.call.group if record and record.call else ""
