"""Files that commands write where `-o` says; the ending names the format."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from distrun.errors import UsageError

Formats = Mapping[str, Callable[[], str | bytes]]
"""An ending such as `.json`, and what makes the content."""


def require(paths: Sequence[Path] | None, endings: Collection[str]) -> None:
    """Refuse, before any work is done, files that could not be written.

    Args:
        paths: What `-o` named.
        endings: Those that the command has a format for.

    Raises:
        UsageError: An ending is none of them, or a file cannot be written.
    """
    for path in paths or ():
        if path.suffix.lower() not in endings:
            other = shlex.quote(str(path.with_suffix(next(iter(endings)))))
            found = f"{path.suffix!r} is none of" if path.suffix else "it has none of"
            raise UsageError(
                f"-o {path}: the ending names the format, and {found} {', '.join(endings)}",
                f"-o {other}",
            )
        require_writable(path)


def require_writable(path: Path) -> None:
    """Refuse a file that could not be written.

    Raises:
        UsageError: It could not.
    """
    if path.is_dir():
        raise UsageError(f"{path} cannot be written: it is a directory")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{path} cannot be written", "is its directory there, and yours?")


def write_all(paths: Sequence[Path] | None, formats: Formats) -> None:
    """Write what `-o` named, each in the format of its ending.

    Raises:
        UsageError: One of them cannot be written.
    """
    for path in paths or ():
        write(path, formats[path.suffix.lower()]())


def write(path: Path, content: str | bytes) -> None:
    """Write a file; where that fails, what was there before is still whole.

    Raises:
        UsageError: It cannot be written.
    """
    data = content if isinstance(content, bytes) else content.encode(errors="backslashreplace")
    target = Path(os.path.realpath(path))  # a link stays one
    try:
        if (target.exists() and not target.is_file()) or not os.access(target.parent, os.W_OK):
            target.write_bytes(data)  # a pipe, or a file in a directory that is not ours
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
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
