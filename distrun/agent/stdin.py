"""The stdin of a rank on another machine: what the launcher reads comes as commands."""

from __future__ import annotations

import os


class Stdin:
    """A pipe to the rank. What does not fit is kept; the supervisor sends no more than a window."""

    def __init__(self) -> None:
        self.read_fd, self._write_fd = os.pipe()
        self._left = b""
        self._ended = self._closed = False
        os.set_blocking(self._write_fd, False)

    @property
    def waiting_fd(self) -> int | None:
        """The descriptor to wait for until it takes more; None if nothing is left."""
        return self._write_fd if self._left and not self._closed else None

    def handed(self) -> None:
        """Close the end that the rank has now, so that its end is seen here."""
        os.close(self.read_fd)

    def take(self, data: bytes) -> int:
        """Take more of it, b"" for its end; return how many bytes are done with."""
        self._left += data
        self._ended |= not data
        return self.flush()

    def flush(self) -> int:
        """Write what fits; return how many bytes are done with."""
        before = len(self._left)
        try:
            while self._left:
                self._left = self._left[os.write(self._write_fd, self._left) :]
        except BlockingIOError:
            return before - len(self._left)
        except OSError:
            self._left = b""  # the rank reads no more
        if self._ended and not self._closed:
            self._closed = True
            os.close(self._write_fd)
        return before
