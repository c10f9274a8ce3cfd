"""An exit handler that runs after all others, because it is registered first.

`atexit` calls last what was registered first. A warm rank is forked from a process that has
imported torch, and with it logging, multiprocessing and weakref. Their handlers still need what
ours closes. So the first import of all registers ours, and the rank adds callbacks later.
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
