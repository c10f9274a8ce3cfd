"""Where in the user's code a call was made."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from functools import cache
from pathlib import Path
from types import FrameType
from typing import NamedTuple

_OWN = str(Path(__file__).parent) + os.sep
_LIBRARIES = tuple(
    folder + os.sep
    for folder in {
        str(Path(__file__).parent.parent),
        str(Path(os.__file__).parent),
        *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
        *site.getsitepackages(),
        site.getusersitepackages(),
    }
)


class Site(NamedTuple):
    """A line of code."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}"


def call_site() -> Site:
    """Return the line of the user's that called; else the line that called `distrun.comm`."""
    caller: FrameType | None = sys._getframe(1)
    while caller is not None and caller.f_code.co_filename.startswith(_OWN):
        caller = caller.f_back
    found = user_site(caller)
    if found is None and caller is not None:
        found = Site(caller.f_code.co_filename, caller.f_lineno)
    return found or Site("?", 0)


def user_site(frame: FrameType | None) -> Site | None:
    """Return the innermost line of the user's own code in a stack, if there is one."""
    while frame is not None:
        if not is_library(frame.f_code.co_filename):
            return Site(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None


@cache
def is_library(file: str) -> bool:
    """Say whether a file is of distrun, the standard library or an installed package."""
    return file.startswith("<") or file.startswith(_LIBRARIES)
