"""The last collectives of all ranks, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from distrun.diagnose.hang import words
from distrun.diagnose.hang.case import parts_of
from distrun.diagnose.hang.evidence import Collective, Record, Witness
from distrun.diagnose.hang.waiting import OneGroup, groups_of


@dataclass(frozen=True)
class Row:
    """One call that some ranks of a group have made alike."""

    group: str
    seq: int
    op: str
    """`all_reduce`, or `send to 3`."""
    tensor: str
    """`float32 [4, 4]`; "" if it has none."""
    called: tuple[int, ...]
    waiting: tuple[int, ...]
    """Those of them on which it has not ended."""
    missing: tuple[int, ...]
    """Ranks of the group that have a record without a call of this number."""
    unknown: tuple[int, ...]
    """Ranks of the group without a record."""
    first_ns: int
    """When the first rank called it, by the wall clock of its machine; 0 if it is not known."""
    last_ns: int

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


def last_call(record: Record) -> str:
    """Return `in all_reduce #41 of group dp (float32 [1056]) for 12 s`, or the last that ended.

    Args:
        record: A rank's; of several collectives that have not ended it is the first.

    Returns:
        "" if it has called none.
    """
    if not record.collectives:
        return ""
    pending = [call for call in record.collectives if not call.done]
    call = pending[0] if pending else record.collectives[-1]
    group = record.groups.get(call.group)
    tensor = words.tensor(call)
    what = words.numbered(call.op, call.seq)
    what += f" of {words.group_name(group)}" if group else ""
    what += f" ({tensor})" if tensor else ""
    since_s = (record.time_ns - call.created_ns) / 1e9
    return f"in {what}{words.lasting(since_s)}" if pending else f"after {what}"


def timeline(witnesses: Mapping[int, Witness], last: int) -> list[Row]:
    """Return the last collectives of each rank, with all ranks that have called them.

    Args:
        witnesses: What is known of each rank, by rank.
        last: How many of each rank.
    """
    wanted = {
        (call.group, call.seq, call.is_p2p)
        for witness in witnesses.values()
        if witness.record and last > 0
        for call in witness.record.collectives[-last:]
    }
    recorded = {rank for rank, witness in witnesses.items() if witness.record}
    rows = [row for group in groups_of(witnesses) for row in _rows(group, wanted, recorded)]
    return sorted(rows, key=lambda row: (row.first_ns, row.group, row.seq))


def _rows(group: OneGroup, wanted: set[tuple[str, int, bool]], recorded: set[int]) -> Iterator[Row]:
    calls: dict[int, dict[int, Collective]] = {}
    for rank, record in sorted(group.records.items()):
        for call in record.collectives:
            if call.group != group.name or (call.group, call.seq, call.is_p2p) not in wanted:
                continue
            if call.is_p2p:
                yield _row(group, call.seq, {rank: call}, (), ())
            else:
                calls.setdefault(call.seq, {})[rank] = call
    unknown = tuple(rank for rank in group.members if rank not in recorded)
    for seq, own in calls.items():
        known = (rank for rank in group.members if rank in recorded)
        missing = tuple(rank for rank in known if group.enqueued_by(rank) < seq)
        for part in parts_of(own, lambda rank, own=own: _kind(own[rank])):  # type: ignore[misc]
            yield _row(group, seq, {rank: own[rank] for rank in part}, missing, unknown)


def _kind(call: Collective) -> tuple[str, str]:
    return call.op, words.tensor(call)


def _row(
    group: OneGroup,
    seq: int,
    calls: Mapping[int, Collective],
    missing: tuple[int, ...],
    unknown: tuple[int, ...],
) -> Row:
    sample = next(iter(calls.values()))
    toward = "to" if sample.op == "send" else "from"
    peer = f" {toward} {sample.peer}" if sample.peer >= 0 else ""
    times = [call.created_ns for call in calls.values()]
    return Row(
        words.short_name(group.group),
        seq,
        words.shortened(sample.op) + peer,
        words.tensor(sample),
        tuple(calls),
        tuple(rank for rank, call in calls.items() if not call.done),
        missing,
        unknown,
        min(times),
        max(times),
    )
