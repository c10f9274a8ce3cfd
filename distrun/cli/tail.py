"""From growing log files to whole lines that can be shown.

Whatever a rank prints, each of its lines comes out whole and alone: progress bars are
reduced to their last state, a line without an end is shown after a moment, and a line
without any end at all is cut.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

from distrun.api.runs import Marks, Part, RunFile
from distrun.streams import BOTH, STDERR, STDOUT

_READ_NBYTES = 1 << 20
_MAX_LINE_NBYTES = 1 << 16
_PARTIAL_S = 1.0
_BAR_S = 5.0
# All up to the last carriage return that something visible follows on the same line.
# Anchored: without the ^ a long line would be searched again from each of its bytes.
_OVERWRITTEN = re.compile(rb"(?m)^[^\n]*\r(?=[^\r\n])")


class LineAssembler:
    """Cuts one rank's bytes into lines."""

    def __init__(self) -> None:
        self._pending = b""
        self._pending_since = 0.0
        self._bar_shown_at = 0.0

    def feed(self, data: bytes) -> bytes:
        """Take bytes; return the whole lines that are complete now, each with its end."""
        if self._pending:
            data = self._pending + data
        end = data.rfind(b"\n") + 1
        block, rest = data[:end], data[end:]
        now = time.monotonic()
        if b"\r" in rest and b"\r" not in self._pending:
            self._bar_shown_at = now  # a bar begins: it may well end before it has to be shown
        self._pending = rest
        self._pending_since = now
        if len(rest) > _MAX_LINE_NBYTES:
            if b"\r" in rest:
                self._pending = rest.rpartition(b"\r")[2][-_MAX_LINE_NBYTES:]
            else:
                block += rest + b"\n"
                self._pending = b""
        return _clean(block)

    def overdue(self, now: float) -> bytes:
        """Return the unfinished line if it has waited long enough to be shown."""
        if not self._pending:
            return b""
        if b"\r" in self._pending:  # a progress bar: its newest state, now and then
            if now - self._bar_shown_at < _BAR_S:
                return b""
            self._bar_shown_at = now
            return _clean(self._pending.rstrip(b"\r") + b"\n")
        return self.flush() if now - self._pending_since >= _PARTIAL_S else b""

    def flush(self) -> bytes:
        """Return the unfinished line, for good."""
        rest, self._pending = self._pending, b""
        return _clean(rest + b"\n") if rest.strip(b"\r") else b""


def _clean(block: bytes) -> bytes:
    if b"\r" in block:
        block = _OVERWRITTEN.sub(b"", block).replace(b"\r", b"")
    if not block.isascii():
        block = block.decode(errors="replace").encode()
    return block


class LogTail:
    """Follows one rank's log file, from the part that was rotated away on.

    Args:
        log: Where it is.
        streams: Where it says which part of it is of which stream.
    """

    def __init__(self, log: RunFile, streams: RunFile) -> None:
        self._log = log
        self._streams = streams
        self._file: int | None = None
        self._marks: Marks | None = None
        self._at = 0
        self._broken = False
        self._skipped = False
        """A part between what was shown and what comes now is gone."""
        self._lines = {stream: LineAssembler() for stream in (STDOUT, STDERR, BOTH)}
        self._time = 0.0
        """When what was read last had come."""

    def read(self) -> Iterator[Part]:
        """Yield blocks of whole lines until the end of what there is."""
        try:
            while data := self._read():
                yield from self._assembled(data)
        except OSError as error:
            if not self._broken:
                self._broken = True
                yield _ours(f"this log cannot be read: {error.strerror}")
            return
        for stream, lines in self._lines.items():
            if block := lines.overdue(time.monotonic()):
                yield Part(stream, self._time, block)

    def close(self) -> list[Part]:
        """Close the file; return the last, unfinished lines."""
        self._leave()
        return self._rest()

    def _assembled(self, data: bytes) -> Iterator[Part]:
        assert self._marks is not None
        if self._skipped:
            self._skipped = False
            yield from self._rest()
            yield _ours("the log was rotated before all of it could be shown")
        for part in self._marks.cut(self._at, data):
            self._time = part.time
            if block := self._lines[part.stream].feed(part.data):
                yield part._replace(data=block)
        self._at += len(data)

    def _rest(self) -> list[Part]:
        rest = [Part(stream, self._time, lines.flush()) for stream, lines in self._lines.items()]
        return [part for part in rest if part.data]

    def _read(self) -> bytes:
        try:
            if self._file is None:
                self._open_first()
            assert self._file is not None
            return os.read(self._file, _READ_NBYTES) or self._read_after_rotation(self._file)
        except FileNotFoundError:
            return b""  # not written yet, or between two names

    def _open_first(self) -> None:
        try:
            self._follow(self._log.rotated.open(os.O_RDONLY), rotated=True)
        except FileNotFoundError:
            self._follow(self._log.open(os.O_RDONLY))

    def _read_after_rotation(self, file: int) -> bytes:
        old = os.fstat(file).st_ino
        if self._log.inode() == old:
            return b""
        newest = self._log.open(os.O_RDONLY)
        # The old file may have grown between our reading its end and its renaming.
        if rest := os.read(file, _READ_NBYTES):
            os.close(newest)
            return rest
        self._skipped = self._log.inode(".1") not in (None, old)
        self._follow(newest)
        return os.read(newest, _READ_NBYTES)

    def _follow(self, file: int, *, rotated: bool = False) -> None:
        self._leave()
        self._file, self._at = file, 0
        self._marks = Marks(self._streams, os.fstat(file).st_ino, rotated=rotated)

    def _leave(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        if self._marks is not None:
            self._marks.close()


def _ours(words: str) -> Part:
    return Part(STDERR, time.time(), f"(distrun: {words})\n".encode())
