"""Reads whole lines from growing log files.

Each line that a rank prints is shown whole, on a line of its own. Of a progress bar only the
last state is shown, once, when it ends. An unfinished line is shown after a short time, and
one that never ends is cut.
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
# All up to the last carriage return that is followed by visible text on the same line.
# Without the ^ a long line would be searched again from each of its bytes.
_OVERWRITTEN = re.compile(rb"(?m)^[^\n]*\r(?=[^\r\n])")
_UP = b"\x1b[A"
_BELOW = re.compile(rb"\n(\r[^\n]*?)\x1b\[A")
_MAX_NESTED = 8
_UP_S = 0.2
"""How long after the end of a bar's line another bar may be drawn below it."""


class LineAssembler:
    """Cuts one rank's bytes into lines."""

    def __init__(self) -> None:
        self._pending = b""
        self._pending_since = 0.0

    @property
    def bar(self) -> bytes:
        """The newest state of the progress bar that is going on; b"" if there is none."""
        bar = _clean(self._pending) if b"\r" in self._pending else b""
        return bar.strip().rpartition(b"\n")[2]

    def feed(self, data: bytes) -> bytes:
        """Add bytes; return the lines that are complete now, each with its end."""
        if self._pending:
            data = self._pending + data
        data = _with_bars_on_one_line(data)
        end = _end_of_lines(data)
        block, rest = data[:end], data[end:]
        self._pending = rest
        self._pending_since = time.monotonic()
        if len(rest) > _MAX_LINE_NBYTES:
            if b"\r" in rest:
                self._pending = rest.rpartition(b"\r")[2][-_MAX_LINE_NBYTES:]
            else:
                block += rest + b"\n"
                self._pending = b""
        return _clean(block)

    def overdue(self, now: float) -> bytes:
        """Return an unfinished line that has waited long enough; never a running bar."""
        waited_s = now - self._pending_since
        if (end := self._pending.rfind(b"\n") + 1) and waited_s >= _UP_S:
            block, self._pending = self._pending[:end], self._pending[end:]
            return _clean(block)
        if b"\r" in self._pending or waited_s < _PARTIAL_S:
            return b""
        return self.flush()

    def flush(self) -> bytes:
        """Return the unfinished line, because no more will come."""
        rest, self._pending = self._pending.rstrip(b"\r"), b""
        return _clean(rest if rest.endswith(b"\n") else rest + b"\n") if rest else b""


def _with_bars_on_one_line(data: bytes) -> bytes:
    """Put bars that are drawn below one another on one line, in turn."""
    for _ in range(_MAX_NESTED):
        if _UP not in data:
            break
        data = _BELOW.sub(rb"\r\1\r", data)
    return data


def _end_of_lines(data: bytes) -> int:
    """Return the end of the whole lines, without a bar below which another may be drawn."""
    end = data.rfind(b"\n") + 1
    begin = data.rfind(b"\n", 0, max(0, end - 1)) + 1
    last, rest = data[begin:end], data[end:]
    is_bar = b"\r" in last[:-1].rstrip(b"\r") and len(last) < _MAX_LINE_NBYTES
    goes_on = not rest or (rest[:1] == b"\r" and b"\r" not in rest[1:])
    return begin if is_bar and goes_on else end


def _clean(block: bytes) -> bytes:
    if b"\r" in block:
        block = _OVERWRITTEN.sub(b"", block).replace(b"\r", b"")
    if not block.isascii():
        block = block.decode(errors="replace").encode()
    return block


class LogTail:
    """Follows one rank's log file, from its rotated part on.

    Args:
        log: The path of the log.
        streams: The path of the file that says which part is of which stream.
        since: What was written before this time is passed over.
    """

    def __init__(self, log: RunFile, streams: RunFile, since: float = 0.0) -> None:
        self._since = since
        self._log = log
        self._streams = streams
        self._file: int | None = None
        self._marks: Marks | None = None
        self._at = 0
        self._broken = False
        self._skipped = False
        """A part of the log after what was shown is lost."""
        self._lines = {stream: LineAssembler() for stream in (STDOUT, STDERR, BOTH)}
        self._time = 0.0
        """When the part that was read last was written."""

    @property
    def bar(self) -> bytes:
        """The newest state of the progress bar that is going on; b"" if there is none."""
        return next((lines.bar for lines in self._lines.values() if lines.bar), b"")

    def read(self) -> Iterator[Part]:
        """Yield blocks of whole lines up to the end of the file."""
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
            if part.time < self._since:
                continue
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
            return b""  # not written yet, or just being renamed

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
        # The old file may have grown after we read its end and before it was renamed.
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
