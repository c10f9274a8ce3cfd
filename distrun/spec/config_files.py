"""Finds the config files to read, and refuses one that another user could have written.

A config file sets variables such as LD_PRELOAD, so anyone who may write it can run code as the
user. Git's rule for repositories (safe.directory) applies to a file that was found, not named.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_MOST_LINKS = 40
_LOOKED_AT_NBYTES = 1 << 20


@dataclass(frozen=True)
class ConfigFile:
    """A config file to read."""

    path: Path
    named: bool
    """Named by --config: read even if others may write it."""


def config_files(named: Path | None, tell: Callable[[str], None]) -> Iterator[ConfigFile]:
    """Yield the nearest pyproject.toml, if no other user may write it, and the named file.

    Args:
        named: The file of --config.
        tell: Called with a line about a file that other users may write.
    """
    here = Path.cwd()
    paths = (directory / "pyproject.toml" for directory in (here, *here.parents))
    found = next((path for path in paths if _is_file(path)), None)
    if found is not None and not (danger := _danger(found)):
        yield ConfigFile(found, named=False)
    elif found is not None and not _same(found, named) and _is_about_us(found):
        tell(f"{found} is not read: {danger}; to read it anyway: --config {found}")
    if named is not None:
        if _is_file(named) and (danger := _danger(named)):  # and not a pipe of the user's shell
            tell(f"warning: {named} is read because --config names it, but {danger}")
        yield ConfigFile(named, named=True)


def _is_file(path: Path) -> bool:
    """Return whether there is a file; in a directory that this user may not search, none is."""
    try:
        return path.is_file()
    except PermissionError:
        return False


def _danger(path: Path) -> str:
    """Return why users other than this one and root could change a file; "" if none could.

    Every directory and link in the path counts: a user who may rename one can replace the file.
    """
    try:
        for place, seen in _way_to(path):
            which = "it" if place == path else place
            if seen.st_uid not in (os.geteuid(), 0):
                return f"{which} belongs to another user (uid {seen.st_uid})"
            if _is_writable_by_others(place, seen):
                return f"{which} can be written by others (mode {stat.S_IMODE(seen.st_mode):o})"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return ""


def _way_to(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every directory and link in a path, from the root on."""
    place, links = Path("/"), 0
    left = list(path.absolute().parts[1:])
    yield place, place.lstat()
    while left:
        part = left.pop(0)
        if part == "..":
            place = place.parent
            continue
        seen = (place / part).lstat()
        yield place / part, seen
        if not stat.S_ISLNK(seen.st_mode):
            place = place / part
            continue
        if (links := links + 1) > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = (place / part).readlink()
        place = Path("/") if target.is_absolute() else place
        left = [p for p in target.parts if p != "/"] + left


def _is_writable_by_others(place: Path, seen: os.stat_result) -> bool:
    mode = seen.st_mode
    if stat.S_ISLNK(mode) or (stat.S_ISDIR(mode) and mode & stat.S_ISVTX):
        return False  # in a sticky directory users cannot rename another user's files
    if mode & stat.S_IWOTH:
        return True
    return bool(mode & stat.S_IWGRP) and not (_is_users_alone(seen.st_gid) and not _has_acl(place))


def _is_users_alone(gid: int) -> bool:
    """Return whether a group is the user's private group, as many systems create per user."""
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    private = gid == user.pw_gid and group.gr_name == user.pw_name
    return private and set(group.gr_mem) <= {user.pw_name}


def _has_acl(place: Path) -> bool:
    """Return whether the file has an ACL; the group bits then hold for all of its entries."""
    if not hasattr(os, "listxattr"):
        return False
    try:
        return "system.posix_acl_access" in os.listxattr(place)
    except OSError as error:
        return error.errno != errno.ENOTSUP  # a file system without such lists


def _same(found: Path, named: Path | None) -> bool:
    return named is not None and named.exists() and named.samefile(found)


def _is_about_us(path: Path) -> bool:
    """Return whether the file is about distrun: most pyproject.toml are not."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            return b"distrun" in file.read(_LOOKED_AT_NBYTES)
    except OSError:
        return False
