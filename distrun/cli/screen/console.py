"""What the user sees: ranks' lines with a prefix, the launcher's own lines, the status.

Output of ranks to stdout and stderr goes to the same stream here, the launcher's lines go to
stderr. A console that is closed or broken ends the output, never the run.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import textwrap
from typing import TextIO

from distrun.cli.screen.width import cut, width
from distrun.processes import widen_pipe
from distrun.streams import BOTH, STDERR, STDOUT

_RANK_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
_LOUD = re.compile(r"^([A-Z][A-Z ]{3,}|error)(?=:)")
_HINT = re.compile(r"(distrun:)? *hint: ")
"""A command in it is pasted, so the terminal breaks the line."""
_ERASE_LINE = b"\r\x1b[2K"


def wants_colour(stream: object) -> bool:
    """Return whether to write colours to a stream, by the user's variables or as a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or _is_terminal(stream)


def _is_terminal(stream: object) -> bool:
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"  # type: ignore[attr-defined]
    except (ValueError, AttributeError):  # closed, or None
        return False


def _file_of(stream: str) -> TextIO:
    return sys.stderr if stream == STDERR else sys.stdout


def plain(text: str) -> str:
    """Return text without control characters: names from users may hold any character."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class Console:
    """The terminal or the pipe that `launch` and `logs` write to."""

    def __init__(self, *, live: bool = True) -> None:
        self.broken = False
        """Whether the output has ended."""
        self.live = live and _is_terminal(sys.stdout)
        """Whether a status line can be shown at the bottom."""
        self._colour = {stream: wants_colour(_file_of(stream)) for stream in (STDOUT, STDERR, BOTH)}
        self._closed: list[TextIO] = []
        self._status = b""
        try:
            widen_pipe(sys.stdout.fileno())
        except (OSError, ValueError, AttributeError):
            pass  # closed, or not a file

    def prefix(self, name: str, rank: int, stream: str) -> bytes:
        """Return `[name] `, in the colour of a rank."""
        text = f"[{name}]".encode()
        if self._colour[stream]:
            text = b"\x1b[%dm%s\x1b[0m" % (_RANK_COLOURS[rank % len(_RANK_COLOURS)], text)
        return text + b" "

    def lines(self, block: bytes, stream: str = BOTH) -> None:
        """Write whole lines to stderr or stdout (`BOTH`: stdout), above the status."""
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

    def leave_if_nobody_reads(self) -> None:
        """End the command if the pipe behind stdout is gone: for commands that only show."""
        if sys.stdout in self._closed:
            sys.exit(128 + signal.SIGPIPE)

    def status(self, text: str) -> None:
        """Replace the line at the bottom; "" removes it."""
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
            pass  # another process made the terminal non-blocking: lose a line, not the run
        except (OSError, ValueError, AttributeError):  # None if it was closed at the start
            self._closed.append(file)
            self.broken = len(self._closed) == 2
            if stream != STDERR:
                self.live = False
                self._status = b""


def same_file(fd: int, other: int) -> bool:
    """Return whether two descriptors are one terminal, pipe or file."""
    try:
        return os.path.sameopenfile(fd, other)
    except OSError:  # closed: nothing is shown there
        return False


def wrapped(text: str, columns: int) -> str:
    """Return text whose long lines are broken between words, and go on indented; 0: as it is."""
    return "\n".join(_wrapped(line, columns) for line in text.split("\n"))


def _wrapped(line: str, columns: int) -> str:
    if not columns or width(line) <= columns or _HINT.match(line):
        return line
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    parts = textwrap.wrap(
        line.strip(),
        columns,
        initial_indent=indent[2:],
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(parts)


def _columns() -> int:
    """Return the columns of the terminal that stderr is; 0 if it is none."""
    if not _is_terminal(sys.stderr):
        return 0
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return shutil.get_terminal_size().columns


def say(message: str, *, bare: bool = False) -> None:
    """Write a line of the launcher's own to stderr; `bare` goes on with the line before."""
    name = "" if bare else "distrun: "
    message = "\n  ".join(map(plain, message.split("\n")))  # no text looks like our line
    message = wrapped(f"{name}{message}", _columns())[len(name) :]
    if wants_colour(sys.stderr):
        name = name and f"\x1b[1m{name}\x1b[0m"
        message = _LOUD.sub("\x1b[1;31m\\1\x1b[0m", message)
    try:
        sys.stderr.write(f"{name}{message}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody reads it


def report_error(message: str, hint: str = "") -> None:
    """Write an error and its hint to stderr."""
    say(f"error: {message}")
    if hint:
        say(f"hint: {hint}")
