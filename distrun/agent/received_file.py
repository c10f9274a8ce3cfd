"""One file of a project where it arrives."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_PREFIX = ".distrun-sync-"


class Refused(Exception):
    """Why a file cannot be received, as a sentence."""


class ReceivedFile:
    """A file or a link.

    Args:
        root: The directory of the project, without links.
        name: Its path below it.
        mode: Its permissions.
        nbytes: Its size.
        mtime_ns: The time of its last change.
        link: Where it points, if it is a link.

    Raises:
        Refused: The name or the link leads out of the project.
    """

    def __init__(
        self, root: Path, name: str, mode: int, nbytes: int, mtime_ns: int, link: str | None
    ) -> None:
        self.name, self.nbytes = name, nbytes
        self._root, self._mode, self._mtime_ns = root, mode & 0o777, mtime_ns
        self._link = link
        if not is_inside(name) or (link is not None and not link_is_inside(name, link)):
            raise Refused(f"{name!r} leads out of the project")
        self._path = root / name

    @property
    def is_link(self) -> bool:
        """Whether it is a link, which has no content."""
        return self._link is not None

    def differs(self) -> bool:
        """Return whether what is here is something else, by the time of its last change too.

        Raises:
            Refused: It cannot be written here.
        """
        self._require_directories()
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            return True
        if stat.S_ISDIR(found.st_mode):
            raise Refused(f"{self.name!r} is a directory there")
        if self._link is not None:
            return not stat.S_ISLNK(found.st_mode) or self._link != str(self._path.readlink())
        return not stat.S_ISREG(found.st_mode) or (
            (found.st_size, found.st_mtime_ns, stat.S_IMODE(found.st_mode) & 0o777)
            != (self.nbytes, self._mtime_ns, self._mode)
        )

    def _require_directories(self, *, make: bool = False) -> None:
        """Refuse a way that leads through a file, or through a link, which may lead anywhere."""
        path = self._root
        for part in self.name.split("/")[:-1]:
            path /= part
            try:
                found = path.lstat()
            except FileNotFoundError:
                if not make:
                    return
                with suppress(FileExistsError):  # another host shares the directory, and was first
                    path.mkdir()
                found = path.lstat()
            if not stat.S_ISDIR(found.st_mode):
                what = "a link" if stat.S_ISLNK(found.st_mode) else "a file"
                shown = str(path.relative_to(self._root))
                raise Refused(f"{shown!r} is {what} there, and a directory here")

    def write(self, content: IO[bytes]) -> None:
        """Write the file; the old one stays as it is until the new one is whole."""
        self._require_directories(make=True)
        with self._replacement() as new, open(new, "wb") as file:
            shutil.copyfileobj(content, file)
            if file.tell() != self.nbytes:
                raise EOFError
            file.flush()
            new.chmod(self._mode)

    def finish(self) -> None:
        """Make the link, or give a file that has arrived its time, which tells it from others.

        Raises:
            Refused: It has not arrived.
        """
        if self._link is not None:
            self._require_directories(make=True)
            with self._replacement() as new:
                new.unlink()
                new.symlink_to(self._link)
            return
        found = self._path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise Refused(f"{self.name!r} has not arrived")
        if found.st_size != self.nbytes:
            return  # rsync has sent it later: a log that grows here. The next --sync sends it again
        self._path.chmod(self._mode)
        os.utime(self._path, ns=(self._mtime_ns, self._mtime_ns))

    @contextmanager
    def _replacement(self) -> Iterator[Path]:
        """Yield a new file beside the path, that takes its place at the end."""
        fd, name = tempfile.mkstemp(prefix=_PREFIX, dir=self._path.parent)
        os.close(fd)
        new = Path(name)
        try:
            yield new
            new.replace(self._path)
        except BaseException:  # also an exit by a signal
            new.unlink(missing_ok=True)
            raise


def is_inside(name: str) -> bool:
    """Return whether a relative path stays below where it begins, and is written plainly."""
    return "\0" not in name and not {"", ".", ".."} & set(name.split("/"))


def link_is_inside(name: str, link: str) -> bool:
    """Return whether a link at a path of the project points to a place in the project."""
    if not link or link.startswith("/") or "\0" in link:
        return False
    depth = name.count("/")
    for part in link.split("/"):
        depth += -1 if part == ".." else 0 if part in ("", ".") else 1
        if depth < 0:
            return False
    return True
