"""Holds back the tracebacks of ranks until it is known whether they ended the rank.

If forty ranks fail after the first, forty tracebacks would hide the one that matters. Those
stay in the ranks' files. A traceback after which its rank lives on is shown.
"""

from __future__ import annotations

import re
import time
from typing import Protocol

from distrun.streams import BOTH

_HOLD_S = 2.0
_MAX_NBYTES = 1 << 18
_LAST_NBYTES = 80
_BEGINS = re.compile(
    rb"^(?:\[rank\d+\]: )?(?:Traceback \(most recent call last\):| +\+ Exception Group Traceback"
    rb"|[\w.]+\._?RemoteTraceback: *$)",
    re.MULTILINE,
)
_WITHOUT_RANK = re.compile(rb"^\[rank\d+\]: ")
"""torch puts it before each line of a traceback."""


class Show(Protocol):
    """Where lines are shown."""

    def lines(self, block: bytes, stream: str) -> None:
        """Show whole lines of a stream."""


class HeldTraceback:
    """Holds one rank's output briefly, from the first line of a traceback on."""

    def __init__(self) -> None:
        self._held = b""
        self._prefix = b""
        self._stream = BOTH
        self._until = 0.0

    def hold(self, block: bytes, prefix: bytes, stream: str = BOTH) -> bytes:
        """Add whole lines; return those that can be shown at once."""
        self._prefix, self._stream = prefix, stream
        if self._held:
            self._held = _ends(self._held + block)
            return b""
        # In much output without a traceback, `in` is ten times faster than the pattern.
        match = _BEGINS.search(block) if b"Traceback" in block else None
        if match is None:
            return block
        self._held = _ends(block[match.start() :])
        self._until = time.monotonic() + _HOLD_S
        return block[: match.start()]

    def release_if_due(self, show: Show, *, dying: bool) -> None:
        """Show the held lines if the rank lives on.

        Args:
            show: Where to show them.
            dying: A rank has failed, or the run is being stopped: this rank is about to end.
        """
        overdue = not dying and time.monotonic() >= self._until
        if self._held and overdue:
            self.release(show)

    def release(self, show: Show) -> None:
        """Show the held lines."""
        if self._held:
            show.lines(prefixed(self._held, self._prefix), self._stream)
            self._held = b""

    def discard(self) -> None:
        """Do not show the held lines: the rank's file has them."""
        self._held = b""

    def drop(self, traceback: str, show: Show) -> None:
        """Do not show a traceback; show what was printed before and after it.

        What comes before may be the cause: the traceback of a child process, of a thread, or of an
        error that the script has printed by itself.

        Args:
            traceback: The text of the traceback, of which the middle may be left out.
            show: Where to show the rest.
        """
        held, self._held = self._held, b""
        lines = traceback.rstrip().encode(errors="replace").split(b"\n")
        end = held.rfind(lines[-1][-_LAST_NBYTES:])  # the middle of a long one is left out
        begin = _begin_of(held[: max(end, 0)], lines[1] if len(lines) > 1 else b"")
        rest = held[held.find(b"\n", end) + 1 :] if end >= 0 else b""
        for part in (held[:begin], rest):
            if part.strip():
                show.lines(prefixed(part, self._prefix), self._stream)


def _begin_of(held: bytes, second: bytes) -> int:
    """Return where the last traceback begins that has this second line; else 0."""
    found = 0
    for match in _BEGINS.finditer(held):
        following = held[held.find(b"\n", match.end()) + 1 :]
        if _WITHOUT_RANK.sub(b"", following.partition(b"\n")[0]) == second:
            found = match.start()
    return found


def _ends(held: bytes) -> bytes:
    """Return the first and the last lines if there are too many for a console."""
    if len(held) <= _MAX_NBYTES:
        return held
    head = held[: held.rfind(b"\n", 0, _MAX_NBYTES // 4) + 1]
    tail = held[held.find(b"\n", len(held) - _MAX_NBYTES // 4) + 1 :]
    left_out = len(held) - len(head) - len(tail)
    return head + b"... %d bytes are in the log of the rank alone ...\n" % left_out + tail


def prefixed(block: bytes, prefix: bytes) -> bytes:
    """Put a prefix before each of the whole lines of a block."""
    return prefix + block[:-1].replace(b"\n", b"\n" + prefix) + b"\n" if prefix else block
