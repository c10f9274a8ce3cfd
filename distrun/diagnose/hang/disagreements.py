"""The verdict where ranks have made different calls with one number."""

from __future__ import annotations

from typing import Any

from distrun.diagnose.hang import words
from distrun.diagnose.hang.blocked import Blocked, also
from distrun.diagnose.hang.case import Case
from distrun.diagnose.hang.findings import NO_MAJORITY, HangVerdict
from distrun.diagnose.hang.mismatch import Mismatch, last_common, mismatch_of
from distrun.diagnose.hang.waiting import waited_s, waits_on_all

_SHOWN = 3


def at_a_wait(case: Case) -> HangVerdict | None:
    """Find calls that differ in a collective that waits."""
    for wait in [*case.waits, *waits_on_all(case.witnesses, case.groups)]:
        if found := mismatch_of(case, wait):
            return _verdict(case, found, case.prefix)
    return None


def at_the_end(case: Case) -> HangVerdict | None:
    """Find calls that differ in the last collective that all have made, when a rank has failed.

    With gloo, tensors of different sizes abort the process, and different dtypes give garbage.
    """
    if not any(w.exit_code for w in case.witnesses.values()):
        return None
    found = last_common(case)
    return _verdict(case, found, "mismatch: ") if found else None


def _verdict(case: Case, found: Mismatch, prefix: str) -> HangVerdict:
    wait = found.wait
    parts = [_part(case, found, part) for part in found.parts[:_SHOWN]]
    if left := [rank for part in found.parts[_SHOWN:] for rank in part]:
        parts.append(f"{words.named(left)} otherwise")
    culprits = found.culprits
    everyone = tuple(sorted(rank for part in found.parts for rank in part))
    doubt = "" if culprits else NO_MAJORITY
    which = f"call #{wait.seq} of {words.group_name(wait.group)}"
    differs = "calls in swapped order in" if found.is_swapped else "ranks disagree in"
    notes = []
    if wait.missing:
        notes.append(f"{words.named(wait.missing)} did not call it")
    for other in case.waits:
        if other is not wait and other.waiting and set(other.missing) & set(everyone):
            notes.append(also(case, Blocked(other.missing, other.waiting, wait=other)))
    return HangVerdict(
        "order" if found.is_swapped else "mismatch",
        f"{prefix}{differs} {which}: {'; '.join(parts)}{doubt}",
        culprits or everyone,
        is_certain=bool(culprits),
        group=wait.group.desc or wait.group.name,
        op=call.op if (call := wait.calls.get(found.parts[0][0])) else wait.op,
        seq=wait.seq,
        waiting=wait.waiting,
        waited_s=waited_s(wait, case.witnesses),
        note="; ".join(notes),
        **_line(case, found, culprits or everyone),
    )


def _part(case: Case, found: Mismatch, ranks: tuple[int, ...]) -> str:
    """Return `ranks 0,2 called all_reduce (float32 [4]) at train.py:8 (all_reduce)`."""
    call = found.wait.calls.get(ranks[0])  # None: only its count is known
    tensor = words.tensor(call) if call else ""
    told = f" ({tensor})" if tensor else ""
    if found.arguments:
        told = f" ({found.arguments[ranks[0]]})" if found.arguments[ranks[0]] else ""
    op = call.op if call else found.wait.op or "it"
    return f"{case.named(ranks)} called {op}{told}{case.callers(found.wait, ranks)}"


def _line(case: Case, found: Mismatch, ranks: tuple[int, ...]) -> dict[str, Any]:
    place = case.place_of_call(found.wait, ranks[0])
    return {"file": place.file, "line": place.line} if place else case.line_of(ranks)
