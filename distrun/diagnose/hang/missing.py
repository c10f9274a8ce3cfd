"""Ranks that have not called the collective, send or receive in which others wait."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from distrun.diagnose.hang import words
from distrun.diagnose.hang.blocked import Blocked, also, blocked_ranks, distinct
from distrun.diagnose.hang.case import Case
from distrun.diagnose.hang.circle import in_a_circle
from distrun.diagnose.hang.cycles import ends_of, shortest_cycle
from distrun.diagnose.hang.evidence import Witness
from distrun.diagnose.hang.findings import HangVerdict, Kind
from distrun.diagnose.hang.point_to_point import FUNCTIONS
from distrun.diagnose.hang.waiting import Wait, waited_s

_AT_WORK_S = 5.0
"""A rank that made progress so lately is at work; a wait that is shorter is no hang yet."""
_GONE = ("ended", "unreachable", "stopped", "debugger", "gil")
_OTHER_WAITS = 2


def awaited(case: Case) -> HangVerdict | None:
    """Find the ranks that the others wait for, directly or through ranks of other groups."""
    blocked = blocked_ranks(case)
    edges = {rank: each.on for rank, each in blocked.items()}
    ends = ends_of(edges)
    if not ends:
        cycle = shortest_cycle(edges)
        return in_a_circle(case, cycle, blocked) if cycle else None
    chief = max(distinct(blocked.values()), key=lambda each: _weight(each, ends))
    culprits = tuple(sorted(ends.intersection(chief.on)))
    others = [each for each in distinct(blocked.values()) if each is not chief]
    if chief.wait is None:
        return _transfer(case, chief, others)
    return _collective(case, chief.wait, culprits, others)


def called_by_all(case: Case) -> HangVerdict | None:
    """Find a collective that all have called and that does not end: one may be gone since."""
    for wait in case.waits:
        if wait.missing or not wait.waiting:
            continue
        since_s = waited_s(wait, case.witnesses)
        if case.idle_s is None and since_s is not None and since_s < _AT_WORK_S:
            continue
        gone = tuple(rank for rank in wait.members if case.standing(rank).kind in (*_GONE, "disk"))
        kind: Kind = case.standing(gone[0]).kind if gone else "unclear"
        rest = f"; {case.whereabouts(gone, since_s)}" if gone else " and it has not ended"
        called = case.callers(wait, wait.waiting)
        lasting = "" if gone else words.lasting(case.idle_of((), since_s))
        return _verdict(
            case,
            wait,
            kind,
            f"{case.prefix}{_head(wait)}: all {len(wait.members)} ranks called it{called}"
            f"{rest}{lasting}",
            gone,
        )
    return None


def _weight(blocked: Blocked, ends: set[int]) -> tuple[bool, bool, int]:
    return bool(ends.intersection(blocked.on)), blocked.wait is not None, len(blocked.ranks)


def _head(wait: Wait) -> str:
    sample = wait.sample
    tensor = words.tensor(sample) if sample else ""
    of = f"{words.numbered(wait.op, wait.seq)} of {words.group_name(wait.group)}"
    return f"{of} ({tensor})" if tensor else of


def _collective(
    case: Case, wait: Wait, culprits: tuple[int, ...], others: Sequence[Blocked]
) -> HangVerdict:
    since_s = waited_s(wait, case.witnesses)
    callers = [rank for rank in wait.members if rank not in wait.missing]
    whole = len(wait.members)
    called = f"{len(callers)} of {whole} ranks called it{case.callers(wait, callers)}"
    kind = _kind(case, wait, culprits[0], since_s)
    prefix, late, lasting_s = case.prefix, "", since_s
    if kind == "late":
        prefix, lasting_s = "late: ", None
        late = f", {since_s:.1f} s late" if since_s is not None else ""
    where = case.whereabouts(culprits, lasting_s)
    notes = [
        *_only_some(callers, whole, wait.op),
        *(also(case, other) for other in others[:_OTHER_WAITS]),
        *_without_group(wait),
        *_unmet(case, culprits),
    ]
    sentence = f"{prefix}{_head(wait)} waits for {words.named(culprits)}{late}: {called}; {where}"
    return _verdict(case, wait, kind, sentence, culprits, "; ".join(notes))


def _kind(case: Case, wait: Wait, culprit: int, since_s: float | None) -> Kind:
    found, witness = case.standing(culprit), case.witnesses.get(culprit)
    if found.kind in _GONE or witness is None:
        return found.kind
    if not witness.is_busy and _is_at_work(case, witness, since_s):
        return "late"
    if culprit in wait.without_group:
        return "no_group"
    # the other rank of a send or receive is not always known
    return "p2p" if found.function in FUNCTIONS else found.kind


def _is_at_work(case: Case, witness: Witness, since_s: float | None) -> bool:
    if witness.idle_s is not None:
        return witness.idle_s < _AT_WORK_S
    if case.idle_s is not None or witness.process is None:
        return False
    return witness.process.state == "R" or (since_s is not None and since_s < _AT_WORK_S)


def _only_some(callers: Sequence[int], whole: int, op: str) -> Iterable[str]:
    if len(callers) == 1 and whole > 2:
        yield f"only rank {callers[0]} called {op or 'it'}: is the call under a condition?"


def _without_group(wait: Wait) -> Iterable[str]:
    if wait.without_group:
        has = words.plural("has", len(wait.without_group))
        group = words.group_name(wait.group)
        yield f"{words.named(wait.without_group)} {has} not made {group}"


def _unmet(case: Case, culprits: Sequence[int]) -> Iterable[str]:
    """Yield that a rank is in a send or receive, if no rank is in its counterpart."""
    ops = {FUNCTIONS[f.function][0] for f in case.standings.values() if f.function in FUNCTIONS}
    op = case.standing(culprits[0]).function
    if len(ops) == 1 and op in FUNCTIONS:
        yield f"no rank is in {'send' if ops == {'recv'} else 'recv'}"


def _transfer(case: Case, chief: Blocked, others: Sequence[Blocked]) -> HangVerdict:
    assert chief.transfer  # it has no collective
    (rank,), (peer,) = chief.ranks, chief.on
    found = case.standing(peer)
    kind: Kind = "p2p" if found.kind in ("c_call", "python", "distributed") else found.kind
    counterpart = "send" if chief.transfer.op == "recv" else "recv"
    return HangVerdict(
        kind,
        f"{case.prefix}{chief.doing} waits for a {counterpart}: rank {rank} called it"
        f"{words.located(case.standing(rank).calls)}; {case.whereabouts((peer,))}",
        (peer,),
        op=chief.transfer.op,
        waiting=(rank,),
        note="; ".join(also(case, other) for other in others[:_OTHER_WAITS]),
        **case.line_of((peer,)),
    )


def _verdict(
    case: Case, wait: Wait, kind: Kind, sentence: str, culprits: tuple[int, ...], note: str = ""
) -> HangVerdict:
    return HangVerdict(
        kind,
        sentence,
        culprits,
        group=wait.group.desc or wait.group.name,
        op=wait.op,
        seq=wait.seq,
        waiting=wait.waiting,
        waited_s=waited_s(wait, case.witnesses),
        note=note,
        **case.line_of(culprits),
    )
