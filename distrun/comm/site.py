"""Where in the user's code a call was made."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType
from typing import NamedTuple

_OWN = str(Path(__file__).parent) + os.sep
_PACKAGE = str(Path(__file__).parent.parent) + os.sep
_STDLIB = str(Path(os.__file__).parent) + os.sep


class Site(NamedTuple):
    """A line of code."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}"


def call_site() -> Site:
    """Return the line that called into `distrun.comm`."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OWN):
        frame = frame.f_back
    return Site(frame.f_code.co_filename, frame.f_lineno) if frame else Site("?", 0)


def user_site(frame: FrameType | None) -> Site | None:
    """Return the innermost line of the user's own code in a stack, if there is one."""
    while frame is not None:
        if not is_library(frame.f_code.co_filename):
            return Site(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None


def is_library(file: str) -> bool:
    """Say whether a file is of distrun, the standard library or an installed package."""
    # site-packages lies below the standard library
    return file.startswith((_PACKAGE, _STDLIB, "<"))
