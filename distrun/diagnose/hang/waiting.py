"""Which collectives have begun on some ranks of a group and not on others: who waits for whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from distrun.diagnose.hang.evidence import Collective, Group, Record, Witness

_WORLD = ("0", "default_pg")


@dataclass(frozen=True)
class Wait:
    """One collective of a group that has not ended on each of its ranks."""

    group: Group
    """As the rank that knows most of it has it."""
    members: tuple[int, ...]
    seq: int
    calls: Mapping[int, Collective] = field(default_factory=dict)
    """The call of each rank that has it in its record."""
    waiting: tuple[int, ...] = ()
    """Those that have called it and on which it has not ended."""
    missing: tuple[int, ...] = ()
    """Those that have not called it."""
    without_group: tuple[int, ...] = ()
    """Those of them that have process groups, but not this one."""

    @property
    def op(self) -> str:
        """What most of those that wait have called, "" if the records hold only counts."""
        ops = [self.calls[rank].op for rank in self.waiting if rank in self.calls]
        return max(ops, key=ops.count) if ops else ""

    @property
    def sample(self) -> Collective | None:
        """The call of one of those that wait."""
        return next(
            (c for r, c in self.calls.items() if r in self.waiting and c.op == self.op), None
        )


@dataclass
class OneGroup:
    """A group as all of its ranks tell it."""

    group: Group
    members: tuple[int, ...]
    records: Mapping[int, Record]
    """Of the members that have it, by rank."""

    @property
    def name(self) -> str:
        """Its name in each rank."""
        return self.group.name

    def calls_of(self, rank: int) -> Mapping[int, Collective]:
        """Return the collectives in the record of a rank, by number."""
        found = self.records[rank].collectives
        return {c.seq: c for c in found if c.group == self.name and not c.is_p2p}

    def pending_of(self, rank: int) -> list[int]:
        """Return the numbers of the collectives that have not ended on a rank."""
        own = self.calls_of(rank)
        if own:
            return sorted(seq for seq, call in own.items() if not call.done)
        counts = self.records[rank].groups[self.name]
        return [counts.completed + 1] if counts.enqueued > counts.completed else []

    def enqueued_by(self, rank: int) -> int:
        """Return the number of the last collective that a rank has called; 0 for none."""
        return self.records[rank].groups[self.name].enqueued if rank in self.records else 0


def groups_of(witnesses: Mapping[int, Witness]) -> list[OneGroup]:
    """Return the groups: by name, and by ranks, since ranks may give one name to different ones."""
    found: dict[tuple[str, tuple[int, ...]], dict[int, Record]] = {}
    unknown: dict[str, dict[int, Record]] = {}
    for rank, witness in sorted(witnesses.items()):
        for name, group in witness.record.groups.items() if witness.record else ():
            place = found.setdefault((name, group.ranks), {}) if group.ranks else None
            place = unknown.setdefault(name, {}) if place is None else place
            place[rank] = witness.record  # type: ignore[assignment]
    for name, records in unknown.items():
        keys = [key for key in found if key[0] == name] or [(name, ())]
        found.setdefault(keys[0], {}).update(records)
    made = []
    for (name, ranks), records in found.items():
        group = max((record.groups[name] for record in records.values()), key=_knowledge)
        everyone = name in _WORLD or group.desc in _WORLD
        members = ranks or (tuple(sorted(witnesses)) if everyone else tuple(sorted(records)))
        made.append(OneGroup(group, members, {r: m for r, m in records.items() if r in members}))
    return made


def _knowledge(group: Group) -> tuple[int, int]:
    return len(group.ranks), len(group.desc)


def waits_of(witnesses: Mapping[int, Witness], groups: list[OneGroup]) -> list[Wait]:
    """Return the collective in which each group waits, of the groups that do.

    That is the first that has not ended on a rank and that a rank has not called; if all ranks
    have called all, the first that has not ended.
    """
    return [wait for group in groups if (wait := _wait_of(witnesses, group))]


def waits_on_all(witnesses: Mapping[int, Witness], groups: Sequence[OneGroup]) -> Iterator[Wait]:
    """Yield the collectives that each rank of their group has called, and that have not ended.

    A rank may have left one that others cannot end: the sender of a broadcast, or a receiver.
    """
    for group in groups:
        pending = _pending(group)
        for seq in sorted({seq for own in pending.values() for seq in own}):
            wait = _wait_at(witnesses, group, seq, pending)
            if not wait.missing:
                yield wait


def _wait_of(witnesses: Mapping[int, Witness], group: OneGroup) -> Wait | None:
    pending = _pending(group)
    numbers = sorted({seq for own in pending.values() for seq in own})
    if not numbers:
        return None
    counts = [group.enqueued_by(rank) for rank in group.members]
    seq = next((n for n in numbers if any(count < n for count in counts)), numbers[0])
    return _wait_at(witnesses, group, seq, pending)


def _pending(group: OneGroup) -> dict[int, list[int]]:
    return {rank: group.pending_of(rank) for rank in group.records}


def _wait_at(
    witnesses: Mapping[int, Witness], group: OneGroup, seq: int, pending: Mapping[int, list[int]]
) -> Wait:
    missing = tuple(rank for rank in group.members if group.enqueued_by(rank) < seq)
    return Wait(
        group.group,
        group.members,
        seq,
        dict(_calls(group, seq)),
        waiting=tuple(rank for rank in group.members if seq in pending.get(rank, ())),
        missing=missing,
        without_group=tuple(rank for rank in missing if _lacks(witnesses, group, rank)),
    )


def _calls(group: OneGroup, seq: int) -> Iterator[tuple[int, Collective]]:
    for rank in sorted(group.records):
        if call := group.calls_of(rank).get(seq):
            yield rank, call


def _lacks(witnesses: Mapping[int, Witness], group: OneGroup, rank: int) -> bool:
    record = witnesses[rank].record if rank in witnesses else None
    return record is not None and bool(record.groups) and rank not in group.records


def waited_s(wait: Wait, witnesses: Mapping[int, Witness]) -> float | None:
    """Return for how many seconds ranks wait already, each by the clock of its own machine."""
    times = [
        (record.time_ns - wait.calls[rank].created_ns) / 1e9
        for rank in wait.waiting
        if rank in wait.calls and (record := witnesses[rank].record) and record.time_ns
    ]
    known = [seconds for seconds in times if 0 <= seconds < 1e7]
    return max(known, default=None)
