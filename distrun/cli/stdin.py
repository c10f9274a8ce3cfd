"""Standard input belongs to rank 0.

A pipe or a file is handed to it as it is. A terminal cannot be: the rank is not in the
terminal's foreground, so its lines are passed on, and only to a world of one rank, where
it is clear whom the user talks to (`input()`, `breakpoint()`).
"""

from __future__ import annotations

import os
import select
import threading


class StdinForRank0:
    """Context manager whose `fd` is what rank 0 reads, None for nothing."""

    def __init__(self, *, world_size: int) -> None:
        self.fd: int | None = None
        self._write: int | None = None
        self._world_size = world_size

    def __enter__(self) -> StdinForRank0:
        try:
            is_terminal = os.isatty(0)
            os.fstat(0)
        except OSError:
            return self  # closed
        if not is_terminal:
            self.fd = os.dup(0)
        elif self._world_size == 1:
            self.fd, self._write = os.pipe()
            threading.Thread(target=self._relay, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.fd is not None:
            os.close(self.fd)

    def _relay(self) -> None:
        assert self._write is not None
        try:
            while True:
                select.select([0], [], [])
                if os.tcgetpgrp(0) != os.getpgrp():  # in the background: reading would stop us
                    select.select([], [], [], 0.5)
                    continue
                data = os.read(0, 4096)
                if not data:
                    break
                os.write(self._write, data)
        except OSError:
            pass  # the terminal or the rank is gone
        os.close(self._write)
