"""The runs directories of this user: a list that each launch adds to, for `ps --all`.

It is `distrun/runs-dirs` below $XDG_STATE_HOME, or ~/.local/state: one path a line, as JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from distrun.runs.files import RunFile

_LIMIT_NBYTES = 4 << 20
_MOST = 1000
"""When more are listed, those that are gone are taken out."""


def list_file() -> RunFile:
    """Return the list's place.

    Raises:
        RuntimeError: There is no home directory.
    """
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    root = state if state.is_absolute() else Path.home() / ".local" / "state"
    return RunFile(root, ("distrun", "runs-dirs"))


def runs_dirs() -> list[Path]:
    """Return the directories that are listed and are there, the newest last."""
    return [path for path in _listed() if path.is_dir()]


def add(runs_dir: Path) -> None:
    """List a directory; where that cannot be done, `ps --all` will not know of it."""
    path = runs_dir.resolve()
    listed = _listed()
    if path in listed:
        return
    try:
        file = list_file()
        file.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = file.open(os.O_WRONLY | os.O_APPEND | os.O_CREAT, make_parents=True)
        try:
            os.write(fd, _lines([path]).encode())  # one write: two launches do not mix
        finally:
            os.close(fd)
        if len(listed) >= _MOST:
            file.replace_text(_lines([each for each in (*listed, path) if each.is_dir()][-_MOST:]))
    except (OSError, RuntimeError):
        pass  # no home, a full or read-only disk, a link in its place: no reason not to train


def _lines(paths: Iterable[Path]) -> str:
    return "".join(json.dumps(str(path)) + "\n" for path in paths)


def _listed() -> list[Path]:
    try:
        text = list_file().read(_LIMIT_NBYTES).decode(errors="replace")
    except (OSError, RuntimeError):
        return []
    found = []
    for line in text.splitlines():
        try:
            path = json.loads(line)
        except (ValueError, RecursionError):
            continue  # torn by a full disk
        if isinstance(path, str) and path.startswith("/") and "\0" not in path:
            found.append(Path(path))
    return list(dict.fromkeys(found))
