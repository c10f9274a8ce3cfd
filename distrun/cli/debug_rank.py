"""`--debug-rank R`: one rank has the terminal, as under python.

The rank has a session of its own, without a controlling terminal: it may read and write
without being in the foreground. Ctrl-C goes to the foreground process, the launcher, which
passes it on to that rank only.
"""

from __future__ import annotations

import os
import sys
import termios
from types import TracebackType
from typing import Any

from distrun.errors import UsageError
from distrun.streams import Streams

_IN_FRONT = "start it without &, or bring it to the front with fg"


class TerminalForRank:
    """Context manager whose `streams` pass the launcher's stdin, stdout and stderr to a rank.

    Raises:
        UsageError: Another command is in the foreground of the terminal.
    """

    def __init__(self, rank: int) -> None:
        if _is_terminal() and not _in_foreground():
            raise UsageError(f"--debug-rank {rank}: this runs in the background", _IN_FRONT)
        self._settings: list[Any] | None = None
        self.streams = Streams(handed_rank=rank, handed_fds=_copies())

    def __enter__(self) -> TerminalForRank:
        if _is_terminal():
            self._settings = termios.tcgetattr(0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for fd in self.streams.open_fds:
            os.close(fd)
        # A rank that was killed in a line editor has left the terminal without echo.
        if self._settings is not None and _in_foreground():
            termios.tcsetattr(0, termios.TCSADRAIN, self._settings)


def _copies() -> tuple[int | None, ...]:
    """Return copies of the three; None for one that was closed at the start."""
    files = (sys.stdin, sys.stdout, sys.stderr)
    return tuple(None if file is None else os.dup(fd) for fd, file in enumerate(files))


def _is_terminal() -> bool:
    return sys.stdin is not None and os.isatty(0)


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return True  # not the controlling terminal of this process
