"""Looks at ranks, as a test writes them."""

from __future__ import annotations

from typing import Any

from distrun.diagnose.hang.evidence import Call, Group, Process, Record
from distrun.diagnose.hang.progress import Look
from distrun.diagnose.places import Frame


def group(enqueued: int, completed: int, ranks: tuple[int, ...] = (0, 1), **own: Any) -> Group:
    return Group(own.pop("name", "0"), "default_pg", ranks, enqueued, completed, **own)


def look(
    *groups: Group,
    frames: tuple[Frame, ...] = (),
    opcode: str = "CALL",
    moves: bool = False,
    call: Call | None = None,
    age_s: float = 0.0,
    printed: int = 0,
    **process: Any,
) -> Look:
    """Return a look at a rank that has answered; `process` as for `Process`."""
    named = {each.name: each for each in groups}
    record = Record(named, frames=frames, opcode=opcode, moves=moves, call=call)
    return Look(record, age_s, Process(**{"state": "S", **process}), printed)
