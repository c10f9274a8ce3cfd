"""The board of checked mode, for ranks that are threads."""

from __future__ import annotations

import sys

from distrun.comm.checked.board import Board, Entry, State
from distrun.comm.checked.report import table
from distrun.comm.errors import RankLateError
from distrun.comm.site import user_site
from distrun.testing.thread_hub import Exchanges
from distrun.testing.turns import Stalled


class ThreadBoard(Board):
    """The board of a group whose ranks are threads.

    Args:
        exchanges: Those of the group.
        rank: This rank, as numbered in the group.
        threads: Identifier of each rank's thread, by rank of the world.
    """

    def __init__(self, exchanges: Exchanges, rank: int, threads: dict[int, int]) -> None:
        self._exchanges = exchanges
        self._rank = rank
        self._threads = threads

    def exchange(self, number: int, record: bytes, timeout_s: float) -> list[Entry] | None:
        exchanges = self._exchanges
        exchanges.put("call", number, self._rank, record)
        others_gave_up = exchanges.gave_up - {self._rank}
        if not others_gave_up:
            try:
                exchanges.turns.wait_until(
                    exchanges.ranks[self._rank],
                    lambda: exchanges.settled("call", number) or bool(exchanges.gave_up),
                    timeout_s,
                )
            except Stalled:
                entries = [self._entry(rank, number, False) for rank in range(exchanges.size)]
                raise RankLateError(
                    f"deadlock: every rank waits for another\n{table(entries)}",
                    "every rank must make the same calls in the same order",
                ) from None
        if exchanges.ranks_without("call", number) or others_gave_up:
            too_late = bool(others_gave_up)
            return [self._entry(rank, number, too_late) for rank in range(exchanges.size)]
        records = exchanges.take("call", number)
        if all(each == record for each in records):
            return None
        return [Entry(State.CALLED, each) for each in records]

    def _entry(self, rank: int, number: int, too_late: bool) -> Entry:
        exchanges = self._exchanges
        record = exchanges.parts("call", number).get(rank)
        if too_late and rank in exchanges.gave_up:
            return Entry(State.GAVE_UP)
        if record is not None:
            return Entry(State.CALLED, record)
        if rank in exchanges.left:
            return Entry(State.LEFT, b"", exchanges.left[rank])
        thread = self._threads.get(exchanges.ranks[rank])  # None: it has not begun
        frame = sys._current_frames().get(thread) if thread is not None else None
        return Entry(State.LATE, b"", str(user_site(frame) or ""))

    def absent(self) -> dict[int, str]:
        return dict(self._exchanges.left)

    def give_up(self, number: int) -> None:
        self._exchanges.gave_up.add(self._rank)

    def leave(self, place: str) -> None:
        self._exchanges.left[self._rank] = place

    def locate(self, place: str) -> None:
        """Nothing to do: a thread can see where another is."""

    def close(self) -> None:
        """Nothing to do."""
