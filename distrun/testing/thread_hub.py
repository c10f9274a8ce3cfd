"""What ranks that are threads share: the messages and the calls of each group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distrun.testing.turns import Turns


class Exchanges:
    """The exchanges of one group; each rank counts its own.

    Args:
        turns: Decides which rank runs.
        ranks: The group's ranks, as numbered in the world.
    """

    def __init__(self, turns: Turns, ranks: Sequence[int]) -> None:
        self.turns = turns
        self.ranks = list(ranks)
        self.left: dict[int, str] = {}
        """Rank of the group -> where it closed the group."""
        self.gave_up: set[int] = set()
        self._parts: dict[tuple[str, int], dict[int, Any]] = {}
        self._taken: dict[tuple[str, int], int] = {}
        self._queues: dict[tuple[int, int, int], MessageQueue] = {}

    @property
    def size(self) -> int:
        """The number of ranks."""
        return len(self.ranks)

    def put(self, kind: str, number: int, rank: int, value: Any) -> None:
        """Add this rank's part of an exchange."""
        self._parts.setdefault((kind, number), {})[rank] = value

    def parts(self, kind: str, number: int) -> dict[int, Any]:
        """Return the parts added so far, by rank."""
        return self._parts.get((kind, number), {})

    def settled(self, kind: str, number: int) -> bool:
        """Return whether all ranks have added their part, or one never will."""
        missing = self.ranks_without(kind, number)
        return not missing or any(rank in self.left for rank in missing)

    def ranks_without(self, kind: str, number: int) -> list[int]:
        """Return the ranks that have not added their part."""
        there = self.parts(kind, number)
        return [rank for rank in range(self.size) if rank not in there]

    def take(self, kind: str, number: int) -> list[Any]:
        """Return all parts, in rank order; the last rank to take them removes them."""
        key = kind, number
        parts = [self._parts[key][rank] for rank in range(self.size)]
        self._taken[key] = self._taken.get(key, 0) + 1
        if self._taken[key] == self.size:
            del self._parts[key], self._taken[key]
        return parts

    def queue(self, src: int, dst: int, tag: int) -> MessageQueue:
        """Return the queue of messages from one rank to another."""
        return self._queues.setdefault((src, dst, tag), MessageQueue())


class MessageQueue:
    """Messages from one rank to another; both ranks count them."""

    def __init__(self) -> None:
        self.messages: dict[int, Any] = {}
        """Number -> a message that was sent and not yet received."""
        self._sent = self._awaited = 0

    def send(self, message: Any) -> None:
        """Send the next message."""
        self.messages[self._sent] = message
        self._sent += 1

    def await_next(self) -> int:
        """Return the number of the next message to receive."""
        self._awaited += 1
        return self._awaited - 1


class Hub:
    """The exchanges of all groups of one run."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self._groups: dict[tuple[object, ...], Exchanges] = {}

    def exchanges(self, key: tuple[object, ...], ranks: Sequence[int]) -> Exchanges:
        """Return the exchanges of a group; all of its ranks pass the same key."""
        if key not in self._groups:
            self._groups[key] = Exchanges(self.turns, ranks)
        return self._groups[key]
