"""Asks a rank where it is, without reading a stack while it changes.

faulthandler's handler reads the frames of the thread that it interrupts. If that thread runs
Python, they may be half made: asked without a pause, a busy thread of Python 3.13 crashed once in
250 times, one of 3.11 and 3.12 once in 5,000, one of 3.10 never. So, in this order:

1. The recorder's thread tells it (agent/recorder.py): with the GIL nothing changes.
2. A main thread that waits in the kernel, or whose recorder has not answered for a second, so that
   it is in C, stands still: faulthandler reads it.
3. One without a recorder that runs on is read before Python 3.13, and later only in an
   examination for a hang: there it is in C, or in a loop that calls nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from distrun.agent.rank import Rank
from distrun.agent.records import Records
from distrun.processes import send_to_main_thread, state_of
from distrun.signal_masks import catches
from distrun.signals import STACKS

_IN_C_AFTER_S = 1.0
"""The recorder gets the GIL within 5 ms, if bytecode runs."""
_RUNS_AFTER_S = 0.3
"""A main thread that runs that long is not seen to wait."""
_IS_ROBUST = sys.version_info < (3, 13)


class StackRequest:
    """One request to one rank.

    Args:
        rank: The rank.
        records: Have been asked for its record, at `now`.
        now: The time.
        examines: It is suspected to hang.
    """

    def __init__(self, rank: Rank, records: Records, now: float, *, examines: bool) -> None:
        self.rank, self._records, self._asked_at = rank, records, now
        self._examines = examines
        self._told = ""
        self._is_sent = False
        self._nbytes = 0
        rank.read_stacks()  # a late answer to an earlier request
        self.is_done = False
        """It has told where it is, or is not going to."""

    def advance(self, now: float) -> None:
        """Do what is due."""
        if self.is_done:
            return
        if frames := self._records.frames_since(self.rank.pid, self._asked_at):
            self._told = _as_faulthandler(frames)
            self.is_done = True
        elif self._is_sent:
            before, self._nbytes = self._nbytes, self.rank.stacks_nbytes
            self.is_done = bool(before) and self._nbytes == before  # it writes no more
        else:
            limit_s = _IN_C_AFTER_S if self._records.has(self.rank.pid) else _RUNS_AFTER_S
            self._may_send(late=now - self._asked_at >= limit_s)

    def text(self) -> str:
        """Return its stack as faulthandler writes it, "" if there is none."""
        return self._told or self.rank.read_stacks()

    def _may_send(self, *, late: bool) -> None:
        """Send the signal if the main thread stands still."""
        pid = self.rank.pid
        has_recorder = self._records.has(pid)
        if not late and (has_recorder or state_of(pid) == "R"):
            return
        runs = late and not has_recorder and state_of(pid) == "R"
        if not catches(pid, STACKS) or (runs and not (self._examines or _IS_ROBUST)):
            self.is_done = True
            return
        self._is_sent = True
        send_to_main_thread(pid, STACKS)


def _as_faulthandler(frames: Sequence[Any]) -> str:
    lines = [f'  File "{file}", line {line} in {function}\n' for file, line, function in frames]
    return "Current thread (most recent call first):\n" + "".join(lines)
