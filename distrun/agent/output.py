"""What one rank prints: one pipe for stdout and stderr, or a pipe for each, read in order.

Between two pipes only the order of their first unread bytes is known: epoll lists descriptors
in the order in which they became readable.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

from distrun.processes import widen_pipe
from distrun.streams import BOTH, STDERR, STDOUT

_READ_NBYTES = 1 << 20


class Output:
    """The read ends of the pipes, and the write ends until the rank has them.

    Args:
        apart: Two pipes.
    """

    def __init__(self, *, apart: bool) -> None:
        pipes = [os.pipe() for _ in range(2 if apart else 1)]
        self.write_fds = [write for _, write in pipes]
        """The write ends for stdout and stderr; the caller that passes them on closes them here."""
        if not apart:
            self.write_fds.append(os.dup(self.write_fds[0]))
        names = (STDOUT, STDERR) if apart else (BOTH,)
        self._streams = {read: name for (read, _), name in zip(pipes, names, strict=True)}
        self._open = dict(self._streams)
        """Those that have not reached end of file."""
        widen_pipe(pipes[0][0])  # stderr's needs no more than the usual 64 KiB
        for fd in self._streams:
            os.set_blocking(fd, False)
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        if self._epoll is not None:
            for fd in self._streams:
                self._epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)

    @property
    def fds(self) -> list[int]:
        """The descriptors that become readable when there is something to read."""
        return list(self._streams) if self._epoll is None else [self._epoll.fileno()]

    @property
    def at_eof(self) -> bool:
        """No process has the write end of either pipe any more."""
        return not self._open

    @property
    def spent_fds(self) -> list[int]:
        """Those of them that have reached end of file."""
        if self._epoll is None:
            return [fd for fd in self._streams if fd not in self._open]
        return self.fds if self.at_eof else []

    def read(self) -> list[tuple[str, bytes]]:
        """Return a part of each stream that has data, in the order in which they began."""
        parts = []
        for fd in self._readable():
            if data := _read(fd):
                parts.append((self._streams[fd], data))
            if data == b"":
                del self._open[fd]
            elif self._epoll is not None:
                self._epoll.modify(fd, select.EPOLLIN | select.EPOLLONESHOT)
        return parts

    def close(self) -> None:
        """Close the reading ends."""
        if self._epoll is not None:
            self._epoll.close()
        for fd in self._streams:
            os.close(fd)

    def _readable(self) -> Iterator[int]:
        if self._epoll is None:
            yield from list(self._open)
        else:
            # Reported once: if it stayed in the list, it would come before what is written later.
            for fd, _ in self._epoll.poll(0):
                yield fd


def _read(fd: int) -> bytes | None:
    """Return bytes, b"" at the end of the file, None if there is nothing now."""
    try:
        return os.read(fd, _READ_NBYTES)
    except BlockingIOError:
        return None
