"""What the user sees: ranks' lines with a prefix, the launcher's own lines, the status.

Ranks' output goes to stdout, the launcher's words go to stderr. A console that is
closed or broken ends the showing, never the run.
"""

from __future__ import annotations

import os
import re
import shutil
import sys

from distrun.processes import widen_pipe

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


def plain(text: str) -> str:
    """Return text that moves no cursor: what others named may hold any character."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class Console:
    """The terminal or the pipe that `launch` and `logs` write to."""

    def __init__(self) -> None:
        self.broken = False
        self.live = _is_terminal(sys.stdout)
        """A status line can stand at the bottom."""
        self._colour = _wants_colour(sys.stdout)
        self._status = b""
        self._prefixes: dict[tuple[int, int], bytes] = {}
        try:
            widen_pipe(sys.stdout.fileno())
        except (OSError, ValueError, AttributeError):
            pass  # closed, or no file at all

    def prefix(self, node: int, rank: int) -> bytes:
        """Return `[node·rank] `, coloured by rank."""
        key = (node, rank)
        if key not in self._prefixes:
            text = f"[{node}·{rank}]".encode()
            if self._colour:
                colour = _RANK_COLOURS[rank % len(_RANK_COLOURS)]
                text = b"\x1b[%dm%s\x1b[0m" % (colour, text)
            self._prefixes[key] = text + b" "
        return self._prefixes[key]

    def lines(self, block: bytes) -> None:
        """Write whole lines to stdout, above the status."""
        self._write(_ERASE_LINE + block + self._status if self._status else block)

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
        shown = plain(text[: max(0, columns - 1)]).encode()
        if shown != self._status:
            self._write(_ERASE_LINE + shown)
            self._status = shown

    def _write(self, data: bytes) -> None:
        if self.broken:
            return
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(sys.stdout.fileno(), view) :]
        except BlockingIOError:
            pass  # somebody made our terminal non-blocking: lose a line, not the run
        except (OSError, ValueError):
            self.broken = True
            self.live = False
            self._status = b""


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
