"""Passes standard input to a rank.

A pipe or a file is passed as it is. A terminal cannot be: the rank is not in its foreground.
So its lines are passed on, and only where it is clear which rank reads them (`input()`,
`breakpoint()`).
"""

from __future__ import annotations

import os
import select
import threading

from distrun.streams import NOTHING_HANDED, Streams


class StdinForRank:
    """Context manager whose `streams` are the stdin of a rank, if there is one.

    Args:
        rank: The rank.
        from_terminal: Pass the lines of a terminal on, too.
    """

    def __init__(self, rank: int, *, from_terminal: bool) -> None:
        self.streams = NOTHING_HANDED
        self._rank = rank
        self._write: int | None = None
        self._from_terminal = from_terminal

    def __enter__(self) -> StdinForRank:
        try:
            is_terminal = os.isatty(0)
            os.fstat(0)
        except OSError:
            return self  # closed
        if not is_terminal:
            self.streams = Streams(handed_rank=self._rank, handed_fds=(os.dup(0), None, None))
        elif self._from_terminal:
            read, self._write = os.pipe()
            self.streams = Streams(handed_rank=self._rank, handed_fds=(read, None, None))
            threading.Thread(target=self._relay, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self.streams.open_fds:
            os.close(fd)

    def _relay(self) -> None:
        assert self._write is not None
        try:
            while True:
                select.select([0], [], [])
                if os.tcgetpgrp(0) != os.getpgrp():  # in the background: to read would stop us
                    select.select([], [], [], 0.5)
                    continue
                data = os.read(0, 4096)
                if not data:
                    break
                os.write(self._write, data)
        except OSError:
            pass  # the terminal or the rank is gone
        os.close(self._write)
