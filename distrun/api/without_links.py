"""Writes files without following links that other users may have made."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DIRECTORY = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAX_LINKS = 40  # like the kernel's limit


@contextmanager
def directory(path: Path) -> Iterator[int]:
    """Open a directory; later calls use its descriptor.

    Links in the path are followed if the user or root has made them.

    Raises:
        OSError: It cannot be opened, or the path contains a link of another user.
    """
    fd, links = os.open("/" if path.is_absolute() else ".", _DIRECTORY), 0
    try:
        left = [*reversed(path.parts)]
        while left:
            name = left.pop()
            if target := _link(fd, name):
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                left += reversed(Path(target).parts)
                continue
            below = os.open(name, _DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def _link(fd: int, name: str) -> str:
    """Return the target of a link, "" if it is not a link."""
    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        return ""
    if found.st_uid not in (0, os.geteuid()):
        raise OSError(errno.ELOOP, f"{name!r} is a link that another user has made")
    return os.readlink(name, dir_fd=fd)


def exists(directory_fd: int, name: str) -> bool:
    """Return whether a name exists, even as a broken link."""
    try:
        os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def holds(directory_fd: int, name: str, content: bytes) -> bool:
    """Return whether a regular file, not a link, has exactly these contents."""
    try:
        found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode) or found.st_size != len(content):
            return False
        with open(os.open(name, _READ, dir_fd=directory_fd), "rb") as file:
            return file.read(len(content) + 1) == content
    except OSError:
        return False  # it cannot be read: the write will report why


def write(directory_fd: int, name: str, content: bytes, *, replace: bool) -> None:
    """Write a whole file or none; an existing link is replaced or refused, never followed.

    Raises:
        OSError: It cannot be written, or exists and must not be replaced.
    """
    written = f".{name}.{uuid.uuid4().hex}" if replace else name
    fd = os.open(written, _NEW, 0o666, dir_fd=directory_fd)
    try:
        with open(fd, "wb") as file:
            file.write(content)
        if replace:
            os.replace(written, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    except BaseException:  # a partial file could be mistaken for a whole one
        os.unlink(written, dir_fd=directory_fd)
        raise
