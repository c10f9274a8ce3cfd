"""The run must be recorded somewhere."""

from __future__ import annotations

import os
from pathlib import Path

from distrun.errors import UsageError


def check_runs_dir(runs_dir: Path) -> None:
    """Refuse a runs directory that cannot be written; nothing is made yet.

    Raises:
        UsageError: It, or the place where it would be made, is not writable.
    """
    place = runs_dir
    try:
        while not place.exists():
            place = place.parent
    except OSError as error:
        raise UsageError(
            f"--runs-dir {str(runs_dir)!r} cannot be used: {error.strerror}",
            "--runs-dir names another place",
        ) from None
    if not place.is_dir():
        problem = f"{str(place)!r} is not a directory"
    elif not os.access(place, os.W_OK | os.X_OK) or _read_only(place):
        problem = f"{str(place)!r} is not writable"
    else:
        return
    raise UsageError(
        f"--runs-dir {str(runs_dir)!r} cannot be used: {problem}", "--runs-dir names another place"
    )


def _read_only(place: Path) -> bool:
    return bool(os.statvfs(place).f_flag & os.ST_RDONLY)
