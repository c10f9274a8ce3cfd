"""The disk of the runs directory; a network disk may hang."""

from __future__ import annotations

import os
from pathlib import Path

from distrun.probe.host_memory import is_writable
from distrun.probe.reading import within

_LIMIT_S = 2.0


def read_runs_disk(runs_dir: Path) -> tuple[bool, int, int]:
    """Return whether runs can be recorded there, the disk's size, and its free space.

    If the directory does not exist, the nearest existing parent is checked.

    Raises:
        Unread: The disk does not answer.
        OSError: It cannot be read.
    """
    return within(_LIMIT_S, f"the disk of {runs_dir}", lambda: _look_at(runs_dir))


def runs_dir_problem(runs_dir: Path) -> str:
    """Return why runs cannot be recorded there, as a clause; "" if they can.

    Raises:
        Unread: The disk does not answer.
    """
    try:
        return within(_LIMIT_S, "its disk", lambda: _problem_of(_nearest(runs_dir)))
    except OSError as error:
        return error.strerror or str(error)


def _look_at(runs_dir: Path) -> tuple[bool, int, int]:
    place = _nearest(runs_dir.absolute())
    found = os.statvfs(place)
    total, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    return not _problem_of(place), total, free


def _nearest(runs_dir: Path) -> Path:
    """Return the directory, or its nearest existing parent."""
    while not runs_dir.exists() and runs_dir != runs_dir.parent:
        runs_dir = runs_dir.parent
    return runs_dir


def _problem_of(place: Path) -> str:
    if not place.is_dir():
        return f"{str(place)!r} is not a directory"
    return "" if is_writable(place) else f"{str(place)!r} is not writable"
