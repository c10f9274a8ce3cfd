"""A place at the very end of an interpreter's exit handlers, taken before anything else is.

`atexit` calls last what was registered first. A warm rank is forked from a process that has
imported torch, and with it logging, multiprocessing and weakref, whose handlers still need what
ours takes away. So the place is taken by the first import of all, and filled in by the rank.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable

_last: list[Callable[[], None]] = []


def call_last(callback: Callable[[], None]) -> None:
    """Have `callback` called after all exit handlers."""
    _last.append(callback)


def _call() -> None:
    for callback in _last:
        callback()


atexit.register(_call)
