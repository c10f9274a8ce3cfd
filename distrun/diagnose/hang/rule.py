"""The rule: when a job is examined for a hang.

All ranks of a process group have made no progress for the hang timeout, while some of them wait
for others. Different counts of collectives alone are no hang: a rank may evaluate or save.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from distrun.diagnose.hang.evidence import Group, Record, Witness
from distrun.diagnose.hang.progress import Look, Progress, waits

_BELOW_TORCH_S, _BELOW_TORCH = 5.0, 0.8
_LOOKS = 8
"""How many looks are within the hang timeout."""
_MIN_LOOK_S, _MAX_LOOK_S = 1.0, 15.0
_MISSED_LOOKS = 3
"""After so many there was nobody to look: the machine was suspended, or this process stopped."""
_MOST_GROUPS = 4096
_Key = tuple[str, tuple[int, ...]]
"""A group's name and ranks."""
_WORLD: _Key = ("", ())


class Rule:
    """Watches the ranks of one attempt.

    Args:
        hang_timeout_s: For how long ranks wait without progress before the job is examined.
        now: The time, on the clock of all later calls.
    """

    def __init__(self, hang_timeout_s: float, now: float) -> None:
        self._hang_timeout_s = hang_timeout_s
        self._ranks: dict[int, Progress] = {}
        self._ended: dict[int, Progress] = {}
        self._looked_at = now
        self._groups: dict[_Key, Group] = {}
        """Every group, as the rank has it that told of it first."""
        self.look_s = self._every_s(hang_timeout_s)
        """How often to look at the ranks."""
        self._again_s: dict[_Key, float] = {}
        """How idle ranks must be to be examined again: they were examined, without a result."""
        self._due: dict[_Key, float] = {}
        """Those to be examined now, and for how long they are idle."""

    def began(self, rank: int, at: float) -> None:
        """Note that a rank has started."""
        self._ranks[rank] = Progress(at)

    def looked(self, at: float, looks: Mapping[int, Look]) -> None:
        """Note what looks at some of the ranks have shown."""
        gap_s = at - self._looked_at
        if gap_s > _MISSED_LOOKS * self.look_s:
            for progress in self._ranks.values():
                progress.skip(gap_s, at)
        self._looked_at = at
        if len(self._groups) > _MOST_GROUPS:  # a script that makes and destroys them
            self._groups.clear()
        for rank, look in looks.items():
            if rank in self._ranks:
                self._ranks[rank].looked(at, look)
            for group in look.record.groups.values() if look.record else ():
                if (group.name, group.ranks) not in self._groups:
                    self._groups[group.name, group.ranks] = group
                    self.look_s = min(self.look_s, self._every_s(self._limit_s(group)))

    def ended(self, rank: int, at: float) -> None:
        """Note that a rank has ended: the others may need some time for that."""
        if ended := self._ranks.pop(rank, None):
            self._ended[rank] = ended
            for progress in self._ranks.values():
                progress.idle_since = at

    def answered(self, rank: int, record: Record, at: float) -> None:
        """Note the counts of a rank that is examined: it may have gone on while it was asked."""
        if rank in self._ranks:
            self._ranks[rank].answered(at, record)

    def examined(self) -> None:
        """Note that those who were to be examined were, and are left alone for as long again."""
        self._again_s |= {key: 2 * idle_s for key, idle_s in self._due.items()}

    def idle_s(self, at: float) -> float | None:
        """Return for how long ranks have been idle that are to be examined now; else None."""
        self._due = {}
        for key, idle_s, limit_s in self._idle(at):
            if idle_s < limit_s / 2:
                self._again_s.pop(key, None)
            elif idle_s >= max(limit_s, self._again_s.get(key, 0.0)):
                self._due[key] = idle_s
        return max(self._due.values(), default=None)

    def at_stop(self, rank: int, host: str, at: float, look: Look) -> Witness:
        """Return what is known of a rank when it is asked for the last time.

        A look at work between two others is seen as at any time; nobody has watched a rank that
        was never looked at.
        """
        progress = self._ranks.get(rank)
        if progress and progress.is_watched and not progress.is_busy:
            progress.looked(at, look)
        return self.witness(rank, host, at)

    def witness(self, rank: int, host: str, at: float) -> Witness:
        """Return what is known of a rank, without its stacks."""
        progress = self._ranks.get(rank) or self._ended.get(rank)
        return progress.witness(rank, host, at) if progress else Witness(rank, host)

    def _idle(self, at: float) -> Iterator[tuple[_Key, float, float]]:
        """Yield, for each group with a rank that waits and for the world, its time and limit."""
        if self._ranks:
            world = min(at - progress.idle_since for progress in self._ranks.values())
            yield _WORLD, world, self._hang_timeout_s
        for key, group in self._groups.items():
            members = [self._ranks[rank] for rank in group.ranks if rank in self._ranks]
            if any(_waits_in(progress, group) for progress in members):
                yield key, min(at - p.idle_since for p in members), self._limit_s(group)

    @staticmethod
    def _every_s(limit_s: float) -> float:
        return min(max(limit_s / _LOOKS, _MIN_LOOK_S), _MAX_LOOK_S)

    def _limit_s(self, group: Group) -> float:
        """Return the hang timeout, or less where torch would end the job before."""
        if not group.timeout_s:
            return self._hang_timeout_s
        below = max(group.timeout_s - _BELOW_TORCH_S, _BELOW_TORCH * group.timeout_s)
        return min(self._hang_timeout_s, below)


def _waits_in(progress: Progress, group: Group) -> bool:
    record = progress.last.record
    if record is None or (own := record.groups.get(group.name)) is None:
        return False
    return own.ranks == group.ranks and own.enqueued > own.completed and waits(record)
