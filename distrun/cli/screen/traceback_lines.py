"""A traceback for the screen: frames of libraries are left out before the user's own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from distrun.frames import is_library, shortened

_LINES = 12
_OWN_FRAMES = 10
_OTHER_LINES = 5
_LINE_CHARS = 240
_FRAME = re.compile(r'^(?P<indent>[ |+]*)File "(?P<file>.+)", line \d+')
_CARETS = re.compile(r"^[ |]*[~^]+$")


class _Part(NamedTuple):
    """A frame with its source, or a line outside of frames."""

    kind: str
    """"own", "library" or "other"."""
    lines: list[str]


def traceback_lines(text: str) -> Iterator[str]:
    """Yield the important lines of a traceback, and how many were left out.

    A short one is shown whole. Of a long one, only the number is shown of the frames of
    libraries, then of the middle of the user's own frames and of a long message.
    """
    lines = [shortened(line, _LINE_CHARS) for line in text.rstrip().splitlines()]
    if len(lines) <= _LINES:
        yield from lines
        return
    parts = _parts(line for line in lines if line.strip(" |") and not _CARETS.match(line))
    for kind, group in groupby(parts, key=lambda part: part.kind):
        found = list(group)
        if kind == "library":
            yield f"  … {_count(len(found), 'frame')} of libraries"
        elif kind == "own":
            yield from _ends(found, _OWN_FRAMES, "frame")
        else:
            yield from _ends(found, _OTHER_LINES, "line")


def _parts(lines: Iterable[str]) -> Iterator[_Part]:
    part, indent = _Part("other", []), 0
    for line in lines:
        match = _FRAME.match(line)
        if match:
            kind = "library" if is_library(match["file"]) else "own"
            part, indent = _Part(kind, [line]), len(match["indent"])
            yield part
        elif part.kind != "other" and _indent(line) > indent:
            part.lines.append(line)
        else:
            part = _Part("other", [line])
            yield part


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" |"))


def _ends(parts: list[_Part], most: int, what: str) -> Iterator[str]:
    """Yield the lines of the first and the last parts, and how many parts are between."""
    head = most // 2
    for part in parts if len(parts) <= most else parts[:head]:
        yield from part.lines
    if len(parts) > most:
        yield f"  … {_count(len(parts) - most, what)} left out"
        for part in parts[head - most :]:
            yield from part.lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
