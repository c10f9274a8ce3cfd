"""Slurm's ranges in host names: `n[01-04]`, `n[1,3-5]`, `rack[1-2]n[1-2]`.

The form is that of https://slurm.schedmd.com/scontrol.html (`show hostnames`).
"""

from __future__ import annotations

import itertools
import math
import re

from distrun.spec.base import Refused
from distrun.spec.host_values import shown_value

MAX_HOSTS = 4096
_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
_HINT = "for example n[01-04] or n[1,3-5]"


def names_in(pattern: str, room: int = MAX_HOSTS) -> list[str]:
    """Return the names that a pattern stands for; the last range counts fastest, as in Slurm.

    Args:
        pattern: A name, with ranges or without. Brackets around an IPv6 address are removed.
        room: How many names it may stand for.

    Raises:
        Refused: A range is malformed, or there are more names.
    """
    if re.fullmatch(r"\[[^\[\]]*:[^\[\]]*\]", pattern):
        return [pattern[1:-1]]
    parts = re.split(r"\[([^\[\]]*)\]", pattern)  # text and ranges in turn
    if any("[" in text or "]" in text for text in parts[::2]):
        raise Refused(f"{shown_value(pattern)} has a bracket without its counterpart", _HINT)
    ranges = [_bounds(text, pattern) for text in parts[1::2]]
    count = math.prod(sum(last - first + 1 for first, last, _ in one) for one in ranges)
    if count > room:
        raise Refused(
            f"{shown_value(pattern)} makes more than {MAX_HOSTS} hosts in all",
            f"{MAX_HOSTS} is the limit",
        )
    choices = [
        [
            str(number).zfill(width)
            for first, last, width in one
            for number in range(first, last + 1)
        ]
        for one in ranges
    ]
    texts = parts[::2]
    return [
        "".join(map("".join, itertools.zip_longest(texts, chosen, fillvalue="")))
        for chosen in itertools.product(*choices)
    ]


def _bounds(text: str, pattern: str) -> list[tuple[int, int, int]]:
    """Return first, last and width of each part of a range."""
    found = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise Refused(f"{shown_value(part)} in {shown_value(pattern)} is not a range", _HINT)
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise Refused(f"{shown_value(part)} in {shown_value(pattern)} counts down", _HINT)
        found.append((first, last, len(match[1])))
    return found
