"""Which children have died, in the order of their deaths.

SIGCHLD says that a child died, not which one was first: `waitpid` goes by age. On a busy
machine 20 ms pass between a death and its reaping, and the wrong rank would be blamed.
Linux keeps the order: a pidfd becomes readable when its process dies, and epoll lists
descriptors in the order in which they became readable.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from typing import Protocol


class Deaths(Protocol):
    """What the forkserver needs from both implementations."""

    fd: int
    """Readable when a child has died."""

    def watch(self, pid: int) -> None:
        """Watch a child."""

    def reap(self) -> Iterator[tuple[int, int]]:
        """Yield pid and wait status of each child that has died since."""

    def close(self) -> None:
        """Close the descriptors in a child that has inherited them."""


def watch_deaths() -> Deaths:
    """Return the best implementation for this system."""
    if sys.platform == "linux" and _has_pidfds():
        return _InOrder()
    return _ByAge()


def _has_pidfds() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:  # a kernel before 5.3, or a sandbox that forbids it
        return False
    return True


class _InOrder:
    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._pids: dict[int, int] = {}
        self.fd = self._epoll.fileno()

    def watch(self, pid: int) -> None:
        pidfd = os.pidfd_open(pid)
        self._pids[pidfd] = pid
        self._epoll.register(pidfd, select.EPOLLIN)

    def reap(self) -> Iterator[tuple[int, int]]:
        for pidfd, _ in self._epoll.poll(0):
            self._epoll.unregister(pidfd)
            os.close(pidfd)
            yield os.waitpid(self._pids.pop(pidfd), 0)

    def close(self) -> None:
        self._epoll.close()
        for pidfd in self._pids:
            os.close(pidfd)


class _ByAge:
    def __init__(self) -> None:
        self.fd, self._write = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def watch(self, pid: int) -> None:
        """Do nothing: SIGCHLD comes for every child."""

    def reap(self) -> Iterator[tuple[int, int]]:
        os.read(self.fd, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            yield pid, status

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(self.fd)
        os.close(self._write)
