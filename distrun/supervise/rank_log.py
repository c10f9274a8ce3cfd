"""One rank's log, and a file beside it that says which part is of which stream."""

from __future__ import annotations

import time
from collections.abc import Callable

from distrun.runs.files import RunFile
from distrun.runs.streams import Mark, first_line, line_of
from distrun.streams import STDERR
from distrun.supervise.files import AppendFile

_LINE_NBYTES = 1 << 20
"""A longer line is cut by a rotation."""
_MARK_S = 0.1
"""How exactly the time of a line is recorded."""


class RankLog:
    """Everything one rank prints, in the order in which it came.

    Args:
        log: Its path.
        streams: The path of the file with the marks; see `runs.streams`.
        complain: Called once, with a message, if the log cannot be written.
        max_nbytes: Rotate both at this size of the log; 0 for never.
    """

    def __init__(
        self, log: RunFile, streams: RunFile, complain: Callable[[str], None], max_nbytes: int
    ) -> None:
        self._log = AppendFile(
            log, lambda said: complain(f"{said}, and what it prints is not shown"), max_nbytes
        )
        self._marks = AppendFile(streams, lambda _: None)  # a full disk is reported for the log
        self._marked_inode: int | None = None
        self._mark = Mark(0)
        self._line_nbytes = 0
        """Bytes since the last end of a line."""

    def create(self) -> None:
        """Make the log: it exists even if the rank prints nothing."""
        self._log.write(b"")

    def say(self, line: str) -> None:
        """Add a line of the launcher's own."""
        self.write(STDERR, f"--- distrun: {line} ---\n".encode())

    def write(self, stream: str, data: bytes | memoryview, at: float | None = None) -> None:
        """Add output of the rank; the mark is written before the bytes.

        Args:
            stream: Of which stream it is.
            data: The bytes.
            at: When it came, seconds since the epoch; None: now.
        """
        now = time.time() if at is None else at
        if self._line_nbytes and not self._log.has_room(len(data)):
            left_nbytes = max(0, _LINE_NBYTES - self._line_nbytes)  # a line is not cut in two
            end = bytes(data[:left_nbytes]).find(b"\n") + 1 or left_nbytes
            self._add(stream, data[:end], now, rotates=False)
            data = data[end:]
        self._add(stream, data, now, rotates=True)

    def close(self) -> None:
        """Close both files."""
        self._log.close()
        self._marks.close()

    def _add(self, stream: str, data: bytes | memoryview, now: float, *, rotates: bool) -> None:
        if not data:
            return
        ended = bytes(data).rfind(b"\n")
        self._line_nbytes = len(data) - 1 - ended + (self._line_nbytes if ended < 0 else 0)
        place = self._log.place_for(len(data) if rotates else 0)
        if place is not None:
            self._note(stream, *place, now)
            self._log.write(data, rotates=False)

    def _note(self, stream: str, inode: int, at: int, now: float) -> None:
        is_new = inode != self._marked_inode
        if not is_new and stream == self._mark.stream and 0 <= now - self._mark.time < _MARK_S:
            return
        if is_new:
            if self._marked_inode is not None:
                self._marks.rotate()
            self._marked_inode = inode
            self._marks.write(first_line(inode))
        self._mark = Mark(at, stream, now)
        self._marks.write(line_of(self._mark))
