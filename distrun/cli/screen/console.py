"""What the user sees: ranks' lines with a prefix, the launcher's own lines, the status.

What ranks print to stdout and to stderr goes there, the launcher's words go to stderr. A
console that is closed or broken ends the showing, never the run.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from typing import TextIO

from distrun.cli.screen.width import cut
from distrun.processes import widen_pipe
from distrun.streams import BOTH, STDERR, STDOUT

_RANK_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
_LOUD = re.compile(r"^([A-Z][A-Z ]{3,}|error)(?=:)")
_ERASE_LINE = b"\r\x1b[2K"


def _wants_colour(stream: object) -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or _is_terminal(stream)


def _is_terminal(stream: object) -> bool:
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"  # type: ignore[attr-defined]
    except (ValueError, AttributeError):  # closed, or None under pythonw-like parents
        return False


def _file_of(stream: str) -> TextIO:
    return sys.stderr if stream == STDERR else sys.stdout


def plain(text: str) -> str:
    """Return text that moves no cursor: what others named may hold any character."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class Console:
    """The terminal or the pipe that `launch` and `logs` write to."""

    def __init__(self, *, live: bool = True) -> None:
        self.broken = False
        """Nothing is shown any more."""
        self.live = live and _is_terminal(sys.stdout)
        """A status line can stand at the bottom."""
        self._colour = {
            stream: _wants_colour(_file_of(stream)) for stream in (STDOUT, STDERR, BOTH)
        }
        self._closed: list[TextIO] = []
        self._status = b""
        try:
            widen_pipe(sys.stdout.fileno())
        except (OSError, ValueError, AttributeError):
            pass  # closed, or no file at all

    def prefix(self, name: str, rank: int, stream: str) -> bytes:
        """Return `[name] `, in the colour of a rank."""
        text = f"[{name}]".encode()
        if self._colour[stream]:
            text = b"\x1b[%dm%s\x1b[0m" % (_RANK_COLOURS[rank % len(_RANK_COLOURS)], text)
        return text + b" "

    def lines(self, block: bytes, stream: str = BOTH) -> None:
        """Write whole lines to stderr or stdout (those of both, too), above the status."""
        if not self._status:
            self._write(block, stream)
        elif stream == STDERR:
            self._write(_ERASE_LINE)
            self._write(block, stream)
            self._write(self._status)
        else:
            self._write(_ERASE_LINE + block + self._status)

    def say(self, message: str, *, bare: bool = False) -> None:
        """Write a line of the launcher's own to stderr; `bare` goes on with the line before."""
        if self._status:
            self._write(_ERASE_LINE)
        say(message, bare=bare)
        if self._status:
            self._write(self._status)

    def status(self, text: str) -> None:
        """Replace the line at the bottom; "" takes it away."""
        if not self.live or self.broken:
            return
        columns = shutil.get_terminal_size().columns
        shown = cut(plain(text), max(0, columns - 1)).encode()
        if shown != self._status:
            self._write(_ERASE_LINE + shown)
            self._status = shown

    def _write(self, data: bytes, stream: str = BOTH) -> None:
        file = _file_of(stream)
        if self.broken or file in self._closed:
            return
        view = memoryview(data)
        try:
            fd = file.fileno()
            while view:
                view = view[os.write(fd, view) :]
        except BlockingIOError:
            pass  # somebody made our terminal non-blocking: lose a line, not the run
        except (OSError, ValueError, AttributeError):  # None, where it was closed from the start
            self._closed.append(file)
            self.broken = len(self._closed) == 2
            if stream != STDERR:
                self.live = False
                self._status = b""


def same_file(fd: int, other: int) -> bool:
    """Say whether two descriptors are of one terminal, pipe or file."""
    try:
        return os.path.sameopenfile(fd, other)
    except OSError:  # closed: nothing of it is shown
        return False


def say(message: str, *, bare: bool = False) -> None:
    """Write a line of the launcher's own to stderr; `bare` goes on with the line before."""
    name = "" if bare else "distrun: "
    message = "\n  ".join(map(plain, message.split("\n")))  # no line of another can be ours
    if _wants_colour(sys.stderr):
        name = name and f"\x1b[1m{name}\x1b[0m"
        message = _LOUD.sub("\x1b[1;31m\\1\x1b[0m", message)
    try:
        sys.stderr.write(f"{name}{message}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody listens


def report_error(message: str, hint: str = "") -> None:
    """Write an error and its cure to stderr."""
    say(f"error: {message}")
    if hint:
        say(f"hint: {hint}")
