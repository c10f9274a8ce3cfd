"""All that is known of a job at one time: where each rank is, and which collectives wait."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from distrun.diagnose.hang import words
from distrun.diagnose.hang.evidence import Witness
from distrun.diagnose.hang.standing import Standing, standing, user_place
from distrun.diagnose.hang.waiting import OneGroup, Wait, groups_of, waits_of
from distrun.diagnose.places import Place

_SHOWN = 2
"""How many different places a sentence names."""
_T = TypeVar("_T")
_NOBODY = Standing("unknown", "left no record")


@dataclass(frozen=True)
class Case:
    """The ranks of a job, what they wait for, and words for it."""

    witnesses: Mapping[int, Witness]
    standings: Mapping[int, Standing]
    groups: Sequence[OneGroup]
    waits: Sequence[Wait]
    idle_s: float | None

    @staticmethod
    def of(witnesses: Mapping[int, Witness], idle_s: float | None) -> Case:
        """Return the case that witnesses make."""
        asked = any(w.process is not None for w in witnesses.values())
        standings = {r: standing(w, nodes_are_asked=asked) for r, w in sorted(witnesses.items())}
        groups = groups_of(witnesses)
        waits = [_with_seen(w, witnesses, standings) for w in waits_of(witnesses, groups)]
        return Case(witnesses, standings, groups, waits, idle_s)

    @property
    def is_over(self) -> bool:
        """Whether no rank lives."""
        return all(found.kind == "ended" for found in self.standings.values())

    @property
    def prefix(self) -> str:
        """The first word of a verdict on it."""
        return "at the end: " if self.standings and self.is_over else "hang: "

    def standing(self, rank: int) -> Standing:
        """Return where a rank is; a group may have ranks of which nothing is known."""
        return self.standings.get(rank, _NOBODY)

    def named(self, ranks: Sequence[int]) -> str:
        """Return `rank 5 on node1`; without the host if it is that of all ranks."""
        hosts = {w.host for w in self.witnesses.values()}
        own = [w.host for r in ranks if (w := self.witnesses.get(r))] if len(hosts) > 1 else []
        return words.named(ranks, own)

    def idle_of(self, ranks: Sequence[int], waited_s: float | None = None) -> float | None:
        """Return for how long ranks have made no progress, as far as it is known."""
        own = [w.idle_s for r in ranks if (w := self.witnesses.get(r)) and w.idle_s is not None]
        return min(own) if own else self.idle_s or waited_s

    def whereabouts(self, ranks: Sequence[int], waited_s: float | None = None) -> str:
        """Return `rank 5 on node1 is in time.sleep at data.py:31 (load) for 312 s`."""

        def tell(rank: int) -> tuple[str, str]:
            found = self.standing(rank)
            return found.words, words.located(found.place)

        def say(part: Sequence[int], told: tuple[str, str]) -> str:
            does, where = told
            if does == "is" and not where:
                does = "is in no Python code"
            lasting = words.lasting(self.idle_of(part, waited_s))
            if part[0] not in self.witnesses or self.standing(part[0]).kind == "ended":
                lasting = ""  # since when is not known
            return f"{self.named(part)} {words.plural(does, len(part))}{where}{lasting}"

        return _joined(ranks, tell, say)

    def line_of(self, ranks: Sequence[int]) -> dict[str, Any]:
        """Return `file` and `line` of the first of the ranks, for a verdict."""
        place = self.standing(ranks[0]).place if ranks else None
        return {"file": place.file, "line": place.line} if place else {}

    def callers(self, wait: Wait, ranks: Sequence[int]) -> str:
        """Return ` at train.py:88 (backward)`: where ranks have called it."""
        places = {rank: self.place_of_call(wait, rank) for rank in ranks}
        if len(set(places.values())) == 1:
            return words.located(next(iter(places.values())))
        known = [rank for rank in ranks if places[rank]]
        return " (" + _joined(known, places.__getitem__, _said_at) + ")" if known else ""

    def place_of_call(self, wait: Wait, rank: int) -> Place | None:
        """Return the user's line that has called a collective, if it is known."""
        call, found = wait.calls.get(rank), self.standing(rank)
        if call and call.frames:
            return user_place(call.frames)
        return found.calls if rank in wait.waiting and found.may_wait else None


def _with_seen(
    wait: Wait, witnesses: Mapping[int, Witness], standings: Mapping[int, Standing]
) -> Wait:
    """Return a wait in which ranks without a record wait too, if they are seen in its function.

    Not if that leaves nobody to wait for: then they are in another call of it.
    """
    seen = [
        rank
        for rank in wait.missing
        if rank in witnesses
        and witnesses[rank].record is None
        and standings[rank].kind == "distributed"
        and standings[rank].function == wait.op
    ]
    missing = tuple(rank for rank in wait.missing if rank not in seen)
    if not seen or not missing:
        return wait
    return replace(wait, missing=missing, waiting=tuple(sorted((*wait.waiting, *seen))))


def _said_at(ranks: Sequence[int], place: Place | None) -> str:
    return f"{words.named(ranks)}{words.located(place)}"


def _joined(
    ranks: Iterable[int], tell: Callable[[int], _T], say: Callable[[Sequence[int], _T], str]
) -> str:
    """Return a part for all ranks of which the same is told, and the ranks that are left out."""
    parts = list(parts_of(ranks, tell))
    shown = [say(part, tell(part[0])) for part in parts[:_SHOWN]]
    if left := [rank for part in parts[_SHOWN:] for rank in part]:
        shown.append(f"{words.named(left)} elsewhere")
    return ", ".join(shown)


def parts_of(ranks: Iterable[int], tell: Callable[[int], object]) -> Iterator[tuple[int, ...]]:
    """Yield the ranks of which the same is told, the most first."""
    parts: dict[object, list[int]] = {}
    for rank in ranks:
        parts.setdefault(tell(rank), []).append(rank)
    for _, part in sorted(parts.items(), key=lambda part: (-len(part[1]), part[1])):
        yield tuple(part)
