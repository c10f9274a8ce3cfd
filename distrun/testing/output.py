"""Prints the output of ranks, with the rank before each line."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from typing import Any, TextIO

_DEBUGGERS = ("pdb", "bdb", "cmd")


def prefixed(rank: int, text: str) -> str:
    """Return text with `[rank 2] ` before each of its lines."""
    return "".join(f"[rank {rank}] {line}\n" for line in text.splitlines())


class RankStream:
    """Replaces sys.stdout while ranks are threads of this process.

    Args:
        stream: The stream that it replaces.
        ranks: Thread identifier -> rank. Output of other threads and of a debugger is not changed.
    """

    def __init__(self, stream: TextIO, ranks: Mapping[int, int]) -> None:
        self._stream = stream
        self._ranks = ranks
        self._begun: dict[int, str] = {}

    def write(self, text: str) -> int:
        """Write text; a rank's line is held back until it is complete."""
        rank = self._ranks.get(threading.get_ident())
        if rank is None or sys._getframe(1).f_globals.get("__name__") in _DEBUGGERS:
            return self._stream.write(text)
        *lines, self._begun[rank] = (self._begun.get(rank, "") + text).split("\n")
        for line in lines:
            self._stream.write(f"[rank {rank}] {line}\n")
        return len(text)

    def finish(self) -> None:
        """Write lines that did not end with a newline."""
        for rank, text in sorted(self._begun.items()):
            self._stream.write(prefixed(rank, text))
        self._begun.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
