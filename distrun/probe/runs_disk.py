"""The disk that records the runs; it may be a network disk, and hang."""

from __future__ import annotations

import os
from pathlib import Path

from distrun.probe.host_memory import is_writable
from distrun.probe.reading import within

_LIMIT_S = 2.0


def read_runs_disk(runs_dir: Path) -> tuple[bool, int, int]:
    """Return whether runs can be recorded there, the disk's size, and what is free.

    The directory need not exist: then the place where it would be made is looked at.

    Raises:
        Unread: The disk does not answer.
        OSError: It cannot be looked at.
    """
    return within(_LIMIT_S, f"the disk of {runs_dir}", lambda: _look_at(runs_dir))


def _look_at(runs_dir: Path) -> tuple[bool, int, int]:
    place = runs_dir.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    found = os.statvfs(place)
    writable = place.is_dir() and is_writable(place)
    return writable, found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
