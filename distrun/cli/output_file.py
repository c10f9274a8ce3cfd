"""The files that `-o` names; the ending of the name chooses the format."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from distrun.errors import UsageError

Formats = Mapping[str, Callable[[], str | bytes]]
"""An ending such as `.json` -> a function that returns the content."""


def require(paths: Sequence[Path] | None, endings: Collection[str]) -> None:
    """Refuse files that cannot be written, before any work is done.

    Args:
        paths: The files that `-o` names.
        endings: The endings that the command has a format for.

    Raises:
        UsageError: An ending is not one of them, or a file cannot be written.
    """
    for path in paths or ():
        if path.suffix.lower() not in endings:
            other = shlex.quote(str(path.with_suffix(next(iter(endings)))))
            found = f"{path.suffix!r} is not one of" if path.suffix else "it must be one of"
            raise UsageError(
                f"-o {path}: the ending names the format, and {found} {', '.join(endings)}",
                f"-o {other}",
            )
        require_writable(path)


def require_writable(path: Path) -> None:
    """Refuse a file that cannot be written.

    Raises:
        UsageError: It cannot be written.
    """
    if path.is_dir():
        raise UsageError(f"{path} cannot be written: it is a directory")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(
            f"{path} cannot be written", "does its directory exist, and may you write to it?"
        )


def write_all(paths: Sequence[Path] | None, formats: Formats) -> None:
    """Write the files that `-o` names, each in the format of its ending.

    Raises:
        UsageError: A file cannot be written.
    """
    for path in paths or ():
        write(path, formats[path.suffix.lower()]())


def write(path: Path, content: str | bytes) -> None:
    """Write a file; if that fails, an older file of this name is unchanged.

    Raises:
        UsageError: It cannot be written.
    """
    data = content if isinstance(content, bytes) else content.encode(errors="backslashreplace")
    target = Path(os.path.realpath(path))  # a link stays a link
    try:
        if (target.exists() and not target.is_file()) or not os.access(target.parent, os.W_OK):
            target.write_bytes(data)  # a pipe, or a file in a directory that we may not write to
        else:
            _replace(target, data)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def _replace(target: Path, data: bytes) -> None:
    draft = target.with_name(f".distrun-{os.urandom(8).hex()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with open(fd, "wb") as file:
            if target.exists():
                os.fchmod(fd, target.stat().st_mode & 0o777)
            file.write(data)
        draft.replace(target)
    except BaseException:  # Ctrl-C too leaves no draft behind
        draft.unlink(missing_ok=True)
        raise
