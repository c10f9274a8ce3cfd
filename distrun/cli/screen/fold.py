"""Equal lines of many ranks become one line that names the ranks (`--fold`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

WINDOW_S = 0.2
"""How long a line waits for equal ones."""


@dataclass
class Folded:
    """One line, and the ranks that printed it."""

    stream: str
    line: bytes
    ranks: list[tuple[int, int]]
    """Node and rank."""
    since: float
    number: int
    """Its number among all lines."""


class Fold:
    """Holds lines briefly to join equal ones; keeps each rank's order, and loses none.

    A line joins an equal one that waits, unless its rank has printed another line since.
    """

    def __init__(self) -> None:
        self._waiting: deque[Folded] = deque()
        self._newest: dict[tuple[int, int], int] = {}
        """The number of the last line of each rank."""
        self._taken = 0

    def take(self, rank: tuple[int, int], stream: str, block: bytes, now: float) -> None:
        """Add whole lines of one rank."""
        for line in block.splitlines(keepends=True):
            entry = self._equal(rank, stream, line)
            if entry is None:
                entry = Folded(stream, line, [], now, self._taken)
                self._taken += 1
                self._waiting.append(entry)
            entry.ranks.append(rank)
            self._newest[rank] = entry.number

    def due(self, now: float) -> Iterator[Folded]:
        """Yield those that have waited long enough, in order."""
        while self._waiting and now - self._waiting[0].since >= WINDOW_S:
            yield self._waiting.popleft()

    def rest(self) -> Iterator[Folded]:
        """Yield all that wait."""
        while self._waiting:
            yield self._waiting.popleft()

    def _equal(self, rank: tuple[int, int], stream: str, line: bytes) -> Folded | None:
        newest = self._newest.get(rank, -1)
        for entry in self._waiting:
            if entry.number > newest and entry.stream == stream and entry.line == line:
                return entry
        return None
