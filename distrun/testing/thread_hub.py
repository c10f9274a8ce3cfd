"""What the ranks of one group share when they are threads: their messages and their calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distrun.testing.baton import Baton


class Meeting:
    """The exchanges of one group, numbered by each rank for itself.

    Args:
        baton: Decides who runs.
        ranks: The group's ranks, as numbered in the world.
    """

    def __init__(self, baton: Baton, ranks: Sequence[int]) -> None:
        self.baton = baton
        self.ranks = list(ranks)
        self.left: dict[int, str] = {}
        """Rank of the group -> where it closed the group."""
        self.gave_up: set[int] = set()
        self._parts: dict[tuple[str, int], dict[int, Any]] = {}
        self._taken: dict[tuple[str, int], int] = {}
        self._posts: dict[tuple[int, int, int], Post] = {}

    @property
    def size(self) -> int:
        """The number of ranks."""
        return len(self.ranks)

    def put(self, kind: str, number: int, rank: int, value: Any) -> None:
        """Give this rank's part of an exchange."""
        self._parts.setdefault((kind, number), {})[rank] = value

    def parts(self, kind: str, number: int) -> dict[int, Any]:
        """Return what was given so far, by rank."""
        return self._parts.get((kind, number), {})

    def settled(self, kind: str, number: int) -> bool:
        """Say whether all have given their part, or one never will."""
        missing = self.ranks_without(kind, number)
        return not missing or any(rank in self.left for rank in missing)

    def ranks_without(self, kind: str, number: int) -> list[int]:
        """Return the ranks that have not given their part."""
        there = self.parts(kind, number)
        return [rank for rank in range(self.size) if rank not in there]

    def take(self, kind: str, number: int) -> list[Any]:
        """Return all parts, in rank order; the last rank to take them clears them away."""
        key = kind, number
        parts = [self._parts[key][rank] for rank in range(self.size)]
        self._taken[key] = self._taken.get(key, 0) + 1
        if self._taken[key] == self.size:
            del self._parts[key], self._taken[key]
        return parts

    def post(self, src: int, dst: int, tag: int) -> Post:
        """Return the letters from one rank to another."""
        return self._posts.setdefault((src, dst, tag), Post())


class Post:
    """Letters from one rank to another, numbered by each of the two for itself."""

    def __init__(self) -> None:
        self.letters: dict[int, Any] = {}
        """Number -> what was sent, and not yet taken."""
        self._sent = self._awaited = 0

    def send(self, letter: Any) -> None:
        """Send the next letter."""
        self.letters[self._sent] = letter
        self._sent += 1

    def await_next(self) -> int:
        """Return the number of the next letter that is waited for."""
        self._awaited += 1
        return self._awaited - 1


class Hub:
    """All meetings of one run."""

    def __init__(self, baton: Baton) -> None:
        self.baton = baton
        self._meetings: dict[tuple[object, ...], Meeting] = {}

    def meeting(self, key: tuple[object, ...], ranks: Sequence[int]) -> Meeting:
        """Return the meeting of a group; all of its ranks come with the same key."""
        if key not in self._meetings:
            self._meetings[key] = Meeting(self.baton, ranks)
        return self._meetings[key]
