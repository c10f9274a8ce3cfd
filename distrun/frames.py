"""Tells user code from library code by file; shortens long texts and lists of ranks."""

from __future__ import annotations

import os
import re
import site
import sysconfig
from collections.abc import Iterable
from functools import cache
from pathlib import Path

_DISTRUN = str(Path(__file__).parent) + os.sep
_RECIPES = _DISTRUN + "_recipes" + os.sep
"""Recipes count as the user's own scripts, wherever they are installed."""

_MARK_CHARS = 32
"""What tells how much is left out takes about so many."""
_LEFT_OUT = re.compile(r" … (\d{1,12}) characters left out … ")
_ANYWHERE = ("/site-packages/", "/dist-packages/", "/lib/python3")


def is_distrun(file: str) -> bool:
    """Return whether a source file belongs to distrun."""
    return file.startswith(_DISTRUN) and not file.startswith(_RECIPES)


@cache
def is_library(file: str) -> bool:
    """Return whether a source file belongs to distrun, the standard library or a package."""
    if file.startswith(_RECIPES):
        return False
    if any(part in file for part in _ANYWHERE):  # of another interpreter or another machine
        return True
    return is_distrun(file) or file.startswith(("<", *_folders()))


@cache
def _folders() -> tuple[str, ...]:
    found = {
        str(Path(os.__file__).parent),
        *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
        *site.getsitepackages(),
        site.getusersitepackages(),
    }
    return tuple(folder + os.sep for folder in found)


def shortened(text: str, limit: int) -> str:
    """Return a text, without its middle if it is clearly longer than `limit` characters."""
    if len(text) <= limit + _MARK_CHARS:
        return text
    half = limit // 2
    middle = text[half:-half]
    earlier = sum(int(found[1]) - len(found[0]) for found in _LEFT_OUT.finditer(middle))
    return f"{text[:half]} … {len(middle) + earlier} characters left out … {text[-half:]}"


def span(ranks: Iterable[int]) -> str:
    """Return `0-3,5` for 0, 1, 2, 3 and 5."""
    return ",".join(
        str(first) if first == last else f"{first}-{last}" for first, last in runs(ranks)
    )


def runs(ranks: Iterable[int]) -> list[list[int]]:
    """Return the first and the last of each run of numbers without a gap."""
    found: list[list[int]] = []
    for rank in sorted(set(ranks)):
        if found and rank == found[-1][1] + 1:
            found[-1][1] = rank
        else:
            found.append([rank, rank])
    return found
