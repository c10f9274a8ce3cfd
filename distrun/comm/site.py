"""Finds the line of the user's code that made a call."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from distrun.frames import is_library

_OWN = str(Path(__file__).parent) + os.sep


class Site(NamedTuple):
    """A line of code."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}"


def call_site() -> Site:
    """Return the user's line that made the call, else the line that called `distrun.comm`."""
    caller: FrameType | None = sys._getframe(1)
    while caller is not None and caller.f_code.co_filename.startswith(_OWN):
        caller = caller.f_back
    found = user_site(caller)
    if found is None and caller is not None:
        found = Site(caller.f_code.co_filename, caller.f_lineno)
    return found or Site("?", 0)


def user_site(frame: FrameType | None) -> Site | None:
    """Return the innermost line of the user's code in a stack, or None."""
    while frame is not None:
        if not is_library(frame.f_code.co_filename):
            return Site(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None
