"""Files in a run directory, opened relative to its descriptor and never through links.

A path is resolved at each use, and a user who may write a parent directory can replace it by a
link. A descriptor always refers to the directory that was opened.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class OpenDirectory:
    """A directory's descriptor, closed when this object is freed."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


def open_directory(path: Path) -> OpenDirectory:
    """Open a directory that was just made.

    Raises:
        OSError: It does not exist, or is a link.
    """
    return OpenDirectory(os.open(path, _DIRECTORY))


@dataclass(frozen=True)
class RunFile:
    """One file: the run directory, and the path from there.

    If the directory is not held open, it and the file must belong to this user or root.
    """

    root: Path
    parts: tuple[str, ...]
    held: OpenDirectory | None = None

    @property
    def path(self) -> Path:
        """Its path, for messages."""
        return self.root.joinpath(*self.parts)

    @property
    def rotated(self) -> RunFile:
        """The file after `rotate`."""
        return replace(self, parts=(*self.parts[:-1], self.parts[-1] + ".1"))

    def __str__(self) -> str:
        return str(self.path)

    def open(self, flags: int, *, make_parents: bool = False) -> int:
        """Open it and return the descriptor; a new file is readable by this user only.

        Raises:
            OSError: It cannot be opened, is another user's, a link, or not a regular file.
        """
        flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO would block for ever
        with self._parent(make=make_parents) as parent:
            try:
                fd = os.open(self.parts[-1], flags, 0o600, dir_fd=parent)
            except OSError as error:
                if error.errno == errno.ELOOP:
                    raise OSError(errno.ELOOP, "it is a symbolic link") from None
                raise
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            self._require_ours(fd)
        except OSError:
            os.close(fd)
            raise
        return fd

    def read(self, limit_nbytes: int) -> bytes:
        """Return its contents.

        Raises:
            OSError: As for `open`, or it is larger than the limit.
        """
        with open(self.open(os.O_RDONLY), "rb") as file:
            data = file.read(limit_nbytes + 1)
        if len(data) > limit_nbytes:
            raise OSError(errno.EFBIG, f"it is larger than {limit_nbytes >> 20} MiB")
        return data

    def replace_text(self, text: str) -> None:
        """Replace its text atomically: a reader sees the old text or the new one.

        Raises:
            OSError: It cannot be written.
        """
        draft, name = f".{self.parts[-1]}.{os.getpid()}", self.parts[-1]
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._parent(make=True) as parent:
            try:
                fd = os.open(draft, flags, 0o600, dir_fd=parent)
                with open(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(text)
                os.replace(draft, name, src_dir_fd=parent, dst_dir_fd=parent)
            except OSError as error:
                try:
                    os.unlink(draft, dir_fd=parent)
                except OSError:
                    pass  # it was not made
                if error.errno != errno.ENOSPC or not _overwritten(name, text, parent):
                    error.filename = error.filename or str(self.path)
                    raise

    def rotate(self) -> None:
        """Rename it to `<name>.1`.

        Raises:
            OSError: It cannot be renamed.
        """
        name = self.parts[-1]
        with self._parent() as parent:
            os.replace(name, name + ".1", src_dir_fd=parent, dst_dir_fd=parent)

    def inode(self, suffix: str = "") -> int | None:
        """Return the inode of `<name><suffix>`, or None if there is no such file."""
        try:
            with self._parent() as parent:
                name = self.parts[-1] + suffix
                return os.stat(name, dir_fd=parent, follow_symlinks=False).st_ino
        except FileNotFoundError:
            return None

    def remove_if_empty(self) -> None:
        """Remove it if it is empty.

        Raises:
            OSError: It does not exist, or cannot be removed.
        """
        with self._parent() as parent:
            if not os.stat(self.parts[-1], dir_fd=parent, follow_symlinks=False).st_size:
                os.unlink(self.parts[-1], dir_fd=parent)

    @contextmanager
    def _parent(self, *, make: bool = False) -> Iterator[int]:
        """Open its parent directory, one path component at a time."""
        fd = os.open(self.root, _DIRECTORY) if self.held is None else os.dup(self.held.fd)
        try:
            self._require_ours(fd)
            for part in self.parts[:-1]:
                if make:
                    try:
                        os.mkdir(part, 0o700, dir_fd=fd)
                    except FileExistsError:
                        pass
                below = os.open(part, _DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)

    def _require_ours(self, fd: int) -> None:
        if self.held is None and (uid := os.fstat(fd).st_uid) not in (os.geteuid(), 0):
            raise OSError(errno.EPERM, f"it belongs to another user (uid {uid})")


def _overwritten(name: str, text: str, parent: int) -> bool:
    """Write a text over a file, in the blocks that it has: a full disk has no others."""
    data = text.encode(errors="backslashreplace")
    try:
        fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError:
        return False
    with open(fd, "r+b", buffering=0) as file:
        size = os.fstat(fd).st_size
        try:
            os.posix_fallocate(fd, 0, len(data))
        except (AttributeError, OSError):  # macOS has no such call
            file.truncate(size)
            return False
        file.write(data)
        file.truncate(len(data))
    return True
