"""Where the ranks of a group put their calls for one another to see."""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol


class State(enum.Enum):
    """How a rank stands to the call in question."""

    CALLED = "called"
    LATE = "late"
    LEFT = "left"
    """It has closed the group, or its process has ended."""
    GAVE_UP = "gave up"
    """It waited for a call of this rank until the timeout."""


class Entry(NamedTuple):
    """What the board says of one rank."""

    state: State
    record: bytes = b""
    """Its call, if it has called."""
    place: str = ""
    """Where it is or was last seen, as file:line, or how it ended."""


class Board(Protocol):
    """One group's board. Calls are numbered from 1, and made in order by every rank."""

    def exchange(self, number: int, record: bytes, timeout_s: float) -> list[Entry] | None:
        """Put up this rank's call, and wait for those of the others.

        Returns:
            None if all ranks put up the very same; else one entry a rank, in rank order.
        """

    def absent(self) -> dict[int, str]:
        """Return the ranks that have closed the group or ended, with how."""

    def give_up(self, number: int) -> None:
        """Tell a rank that comes later that this one no longer waits for it."""

    def leave(self, place: str) -> None:
        """Tell the others that this rank makes no more calls."""

    def locate(self, place: str) -> None:
        """Tell the others where this rank is, while it makes no call."""

    def close(self) -> None:
        """Give up what the board holds."""
