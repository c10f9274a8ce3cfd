"""The interface of a board: it shows each rank of a group the calls of the others."""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol


class State(enum.Enum):
    """State of a rank with respect to one call."""

    CALLED = "called"
    LATE = "late"
    LEFT = "left"
    """It has closed the group, or its process has ended."""
    GAVE_UP = "gave up"
    """It waited for a call of this rank until the timeout."""


class Entry(NamedTuple):
    """The board's entry for one rank."""

    state: State
    record: bytes = b""
    """Its encoded call, if it has called."""
    place: str = ""
    """Its last known line of code, as file:line, or how it ended."""


class Board(Protocol):
    """The board of one group. Every rank numbers its calls from 1."""

    def exchange(self, number: int, record: bytes, timeout_s: float) -> list[Entry] | None:
        """Post this rank's call, and wait for those of the others.

        Returns:
            None if all ranks posted the same call; else one entry per rank, in rank order.
        """

    def absent(self) -> dict[int, str]:
        """Return the ranks that have closed the group or ended, and how each did."""

    def give_up(self, number: int) -> None:
        """Tell ranks that call later that this one no longer waits for them."""

    def leave(self, place: str) -> None:
        """Tell the others that this rank makes no more calls."""

    def locate(self, place: str) -> None:
        """Tell the others where this rank is between two calls."""

    def close(self) -> None:
        """Release the resources of the board."""
