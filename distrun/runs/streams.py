"""Splits a rank's log into parts of stdout and stderr, with times.

The log contains both in order. `rankR.streams` in the same directory has a line for each change of
the stream, and about ten lines per second while there is output: offset, stream, time.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from distrun.runs.files import RunFile
from distrun.streams import BOTH, STDERR, STDOUT

_NAMES = {name: name for name in (BOTH, STDERR, STDOUT)}


class Mark(NamedTuple):
    """The stream and time from this offset of the log to the next mark."""

    at: int
    stream: str = BOTH
    time: float = 0.0


class Part(NamedTuple):
    """Bytes of a log, their stream and their time; 0 if the time is unknown."""

    stream: str
    time: float
    data: bytes


def first_line(inode: int) -> bytes:
    """Return the first line: it identifies the log of the marks, also after a rename."""
    return b"log %d\n" % inode


def line_of(mark: Mark) -> bytes:
    """Return the line of a mark."""
    return f"{mark.at} {mark.stream} {mark.time:.2f}\n".encode()


class Marks:
    """Reads the marks of one log while they are written; each mark precedes its bytes.

    Args:
        file: The file of the marks.
        inode: The inode of the log.
        rotated: Whether the log has its rotated name.
    """

    def __init__(self, file: RunFile, inode: int, *, rotated: bool) -> None:
        self._names = (file.rotated, file) if rotated else (file, file.rotated)
        self._inode = inode
        self._fd: int | None = None
        self._partial = b""
        self._current = Mark(0)
        self._next: deque[Mark] = deque()

    def cut(self, at: int, data: bytes) -> Iterator[Part]:
        """Split bytes of the log, read at an offset, into the parts of each stream."""
        self._read()
        begin, end = at, at + len(data)
        while begin < end:
            while self._next and self._next[0].at <= begin:
                self._current = self._next.popleft()
            until = min(end, self._next[0].at) if self._next else end
            part = data[begin - at : until - at]
            yield Part(self._current.stream, self._current.time, part)
            begin = until

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _read(self) -> None:
        if self._fd is None:
            self._fd = self._open()
        while self._fd is not None and (new := os.read(self._fd, 1 << 16)):
            *lines, self._partial = (self._partial + new).split(b"\n")
            self._next.extend(mark for line in lines if (mark := _mark(line)))

    def _open(self) -> int | None:
        """Open the file whose first line identifies the log; in a copied run, go by its name."""
        top, otherwise = first_line(self._inode), None
        for name in self._names:
            try:
                fd = name.open(os.O_RDONLY)
            except OSError:
                continue  # a run of an older version without marks: the stream is unknown
            if os.pread(fd, len(top), 0) == top:
                if otherwise is not None:
                    os.close(otherwise)
                return fd
            if name is self._names[0]:
                otherwise = fd
            else:
                os.close(fd)
        return otherwise


def _mark(line: bytes) -> Mark | None:
    try:
        at, stream, time = line.decode().split(" ")
        return Mark(int(at), _NAMES[stream], float(time))
    except (ValueError, KeyError):
        return None  # the first line, or a line truncated by a full disk
