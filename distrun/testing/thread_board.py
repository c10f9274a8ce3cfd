"""Checked mode between threads."""

from __future__ import annotations

import sys

from distrun.comm.checked.board import Board, Entry, State
from distrun.comm.checked.report import table
from distrun.comm.errors import RankLateError
from distrun.comm.site import user_site
from distrun.testing.baton import Stalled
from distrun.testing.thread_hub import Meeting


class ThreadBoard(Board):
    """The board of a group whose ranks are threads.

    Args:
        meeting: Of the group.
        rank: This rank, as numbered in the group.
        threads: Identifier of each rank's thread, by rank of the world.
    """

    def __init__(self, meeting: Meeting, rank: int, threads: dict[int, int]) -> None:
        self._meeting = meeting
        self._rank = rank
        self._threads = threads

    def exchange(self, number: int, record: bytes, timeout_s: float) -> list[Entry] | None:
        meeting = self._meeting
        meeting.put("call", number, self._rank, record)
        others_gave_up = meeting.gave_up - {self._rank}
        if not others_gave_up:
            try:
                meeting.baton.wait_until(
                    meeting.ranks[self._rank],
                    lambda: meeting.settled("call", number) or bool(meeting.gave_up),
                    timeout_s,
                )
            except Stalled:
                entries = [self._entry(rank, number, False) for rank in range(meeting.size)]
                raise RankLateError(
                    f"deadlock: every rank waits for another\n{table(entries)}",
                    "every rank has to make the same calls in the same order",
                ) from None
        if meeting.ranks_without("call", number) or others_gave_up:
            too_late = bool(others_gave_up)
            return [self._entry(rank, number, too_late) for rank in range(meeting.size)]
        records = meeting.take("call", number)
        if all(each == record for each in records):
            return None
        return [Entry(State.CALLED, each) for each in records]

    def _entry(self, rank: int, number: int, too_late: bool) -> Entry:
        meeting = self._meeting
        record = meeting.parts("call", number).get(rank)
        if too_late and rank in meeting.gave_up:
            return Entry(State.GAVE_UP)
        if record is not None:
            return Entry(State.CALLED, record)
        if rank in meeting.left:
            return Entry(State.LEFT, b"", meeting.left[rank])
        thread = self._threads[meeting.ranks[rank]]
        return Entry(State.LATE, b"", str(user_site(sys._current_frames().get(thread)) or ""))

    def absent(self) -> dict[int, str]:
        return dict(self._meeting.left)

    def give_up(self, number: int) -> None:
        self._meeting.gave_up.add(self._rank)

    def leave(self, place: str) -> None:
        self._meeting.left[self._rank] = place

    def locate(self, place: str) -> None:
        """Nothing to do: a thread can see where another is."""

    def close(self) -> None:
        """Nothing to do."""
