"""What one rank prints: one pipe for stdout and stderr, or a pipe for each, read in order.

Two pipes have no order between them but that of their first unread bytes: the kernel's epoll
tells it, because it lists what has become readable in the order in which it became so.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

from distrun.processes import widen_pipe
from distrun.streams import BOTH, STDERR, STDOUT

_READ_NBYTES = 1 << 20


class Output:
    """The reading ends, and the writing ends until the rank has them.

    Args:
        apart: Two pipes.
    """

    def __init__(self, *, apart: bool) -> None:
        pipes = [os.pipe() for _ in range(2 if apart else 1)]
        self.write_fds = [write for _, write in pipes]
        """Of stdout and stderr; whoever hands them on closes them here."""
        if not apart:
            self.write_fds.append(os.dup(self.write_fds[0]))
        names = (STDOUT, STDERR) if apart else (BOTH,)
        self._streams = {read: name for (read, _), name in zip(pipes, names, strict=True)}
        self._open = dict(self._streams)
        """Those that have not come to their end."""
        widen_pipe(pipes[0][0])  # stderr's needs no more than the usual 64 KiB
        for fd in self._streams:
            os.set_blocking(fd, False)
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        if self._epoll is not None:
            for fd in self._streams:
                self._epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)

    @property
    def fds(self) -> list[int]:
        """What becomes readable when there is something to read."""
        return list(self._streams) if self._epoll is None else [self._epoll.fileno()]

    @property
    def at_eof(self) -> bool:
        """Nobody has the other end of either pipe any more."""
        return not self._open

    @property
    def spent_fds(self) -> list[int]:
        """Those of them that never will be readable again."""
        if self._epoll is None:
            return [fd for fd in self._streams if fd not in self._open]
        return self.fds if self.at_eof else []

    def read(self) -> list[tuple[str, bytes]]:
        """Return a part of each stream that has something, the one that began first first."""
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
            # Reported once: left in the list it would stand before what is written from now on.
            for fd, _ in self._epoll.poll(0):
                yield fd


def _read(fd: int) -> bytes | None:
    """Return bytes, b"" at the end of the file, None if there is nothing now."""
    try:
        return os.read(fd, _READ_NBYTES)
    except BlockingIOError:
        return None
