"""A command on a terminal of its own, with a person in front of it."""

from __future__ import annotations

import os
import pty
import select
import signal
import termios
import time
from pathlib import Path

import pytest


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, words: list[str], cwd: Path) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execvp(words[0], words)
        self.screen = ""
        self._seen = 0

    def settings(self) -> list[object]:
        return termios.tcgetattr(self._fd)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def wait_for(self, text: str, limit_s: float = 60.0) -> None:
        """Wait until a text comes, after what was waited for before."""
        deadline = time.monotonic() + limit_s
        while (found := self.screen.find(text, self._seen)) < 0:
            if time.monotonic() > deadline or not self._read(deadline):
                pytest.fail(f"{text!r} does not come: {self.screen}")
        self._seen = found + len(text)

    def interrupt(self, answer: str) -> None:
        """Press Ctrl-C until it is answered.

        Python itself misses one that comes between its last look for signals and the read.
        """
        deadline = time.monotonic() + 60.0
        while answer not in self.screen[self._seen :] and time.monotonic() < deadline:
            self.type("\x03")
            while select.select([self._fd], [], [], 5.0)[0] and answer not in self.screen:
                self._read(deadline)
        self.wait_for(answer)

    def end(self, settings: list[object] | None = None, limit_s: float = 60.0) -> int:
        """Read all that is to come, and return the exit code."""
        deadline = time.monotonic() + limit_s
        while self._read(deadline):
            pass
        assert settings in (None, self.settings())
        os.close(self._fd)
        pid, self.pid = self.pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def kill(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self.end()

    def _read(self, deadline: float) -> bool:
        if not select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            pytest.fail(f"the terminal is silent: {self.screen}")
        try:
            data = os.read(self._fd, 1 << 16)
        except OSError:
            return False  # nobody has the other end
        self.screen += data.decode(errors="replace")
        return bool(data)
