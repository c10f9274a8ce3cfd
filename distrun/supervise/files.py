"""Writing into the run directory: a full disk is reported once, and never stops a run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from distrun.runs.files import RunFile


class AppendFile:
    """A file that is only ever added to.

    Args:
        file: Its path.
        complain: Called once, with a message, if it cannot be written.
        max_nbytes: Rotate to `<name>.1` at this size; 0 for never.
    """

    def __init__(self, file: RunFile, complain: Callable[[str], None], max_nbytes: int = 0) -> None:
        self._file = file
        self._complain = complain
        self._max_nbytes = max_nbytes
        self._fd: int | None = None
        self._nbytes = 0
        self._broken = False

    def write(self, data: bytes | memoryview, *, rotates: bool = True) -> None:
        """Add `data`; if that fails, complain and continue.

        Args:
            data: The bytes.
            rotates: Rotate it first if they would exceed its limit.
        """
        try:
            self._make_room(len(data) if rotates else 0)
            self._write_all(data)
        except OSError as error:
            self._tell(error)

    def has_room(self, nbytes: int) -> bool:
        """Return whether the next `nbytes` are below its limit."""
        return not self._max_nbytes or self._nbytes + nbytes <= self._max_nbytes

    def place_for(self, nbytes: int) -> tuple[int, int] | None:
        """Return the inode and the offset that the next `nbytes` will get; None without a file."""
        try:
            fd = self._make_room(nbytes)
            return os.fstat(fd).st_ino, self._nbytes
        except OSError as error:
            self._tell(error)
            return None

    def rotate(self) -> None:
        """Rename it to `<name>.1`; what is written from now on goes into a new one."""
        self.close()
        try:
            self._file.rotate()
        except OSError as error:
            self._tell(error)

    def write_json(self, record: dict[str, Any]) -> None:
        """Add one line of JSON."""
        self.write(json.dumps(record).encode() + b"\n")

    def close(self) -> None:
        """Close it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _make_room(self, nbytes: int) -> int:
        """Open it; rotate it first if `nbytes` more would exceed its limit."""
        fd = self._fd if self._fd is not None else self._open()
        if nbytes and self._nbytes and not self.has_room(nbytes):
            self.close()
            self._file.rotate()
            fd = self._open()
        return fd

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._fd = self._file.open(flags, make_parents=True)
        self._nbytes = os.fstat(self._fd).st_size
        return self._fd

    def _tell(self, error: OSError) -> None:
        if not self._broken:
            self._broken = True
            name = "/".join(self._file.parts)
            self._complain(
                f"{name} cannot be written: {error.strerror}; the run goes on without it"
            )

    def _write_all(self, data: bytes | memoryview) -> None:
        assert self._fd is not None
        view = memoryview(data)
        while view:
            count = os.write(self._fd, view)
            self._nbytes += count
            view = view[count:]
