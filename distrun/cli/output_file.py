"""Files that commands write where they are told to."""

from __future__ import annotations

import os
from pathlib import Path

from distrun.errors import UsageError


def require_writable(path: Path | None) -> None:
    """Refuse, before any work is done, a file that could not be written.

    Raises:
        UsageError: It could not.
    """
    if path is not None and not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{path} cannot be written", "is its directory there, and yours?")


def write(path: Path, text: str) -> None:
    """Write a text file.

    Raises:
        UsageError: It cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
