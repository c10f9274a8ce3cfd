"""A real process that a test may have killed, and that says whether it was."""

from __future__ import annotations

import subprocess


class Echo:
    """It gives back what it is given, until it is killed."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            ["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    @property
    def pid(self) -> int:
        """Its number."""
        return self.process.pid

    def answers(self) -> bool:
        """Say whether it lives; one that was sent SIGKILL does nothing more, seen or not."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(b"?")
            return self.process.stdout.read(1) == b"?"
        except BrokenPipeError:
            return False

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()
