"""Processes that an ended rank has left: a wrapper's child, an uploader, a loader's worker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection

from distrun.processes import LeftBehind, is_resource_tracker, left_behind, send

_LOOK_S = 0.1


class Leftovers:
    """The processes of one node whose rank has ended.

    Args:
        tag: The mark of the node's processes.
        beside: Returns the children of this process that are none of them.
    """

    def __init__(self, tag: str, beside: Callable[[], Collection[int]]) -> None:
        self._tag = tag
        self._beside = beside
        self._found: dict[int, LeftBehind] = {}
        self._look_at = 0.0
        self._signalled: set[int] = set()
        self._given_up: set[int] = set()

    @property
    def any(self) -> bool:
        """Whether there were any at the last look."""
        return bool(self._found)

    def find(self, *, now: bool = False) -> dict[int, LeftBehind]:
        """Return them by pid; looks ten times a second unless `now`."""
        if now or time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_S
            found = left_behind(self._tag, os.getpid(), self._beside())
            self._found = {
                pid: each
                for pid, each in found.items()
                if pid not in self._given_up and not is_resource_tracker(pid)
            }
        return self._found

    def tell(self, signum: int) -> None:
        """Send a signal to those that have not got it yet, and whose parent is gone.

        A parent that lives signals its children itself; a DataLoader whose worker was ended
        by a signal would report a crash.
        """
        for pid in self._found.keys() - self._signalled:
            if self._found[pid].parent in self._found:
                continue
            self._signalled.add(pid)
            send(pid, signum)
            send(pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill them, and stop waiting for them."""
        for pid in self._found:
            send(pid, signal.SIGKILL)
        self._given_up |= self._found.keys()
        self._found = {}


def names_of(found: dict[int, LeftBehind]) -> str:
    """Return `sleep (pid 7), sh (pid 9)`."""
    named = [f"{each.name} (pid {pid})" for pid, each in sorted(found.items())]
    return ", ".join(named[:8]) + (f" and {len(named) - 8} more" if len(named) > 8 else "")
