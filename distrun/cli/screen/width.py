"""How many columns of a terminal a text takes, and how to shorten it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_LEAST = 8
"""A name is not shortened below so many columns: it would be useless."""


def width(text: str) -> int:
    """Return the columns that a text takes; a letter of East Asia takes two."""
    return len(text) if text.isascii() else sum(map(_of, text))


def _of(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, columns: int) -> str:
    """Return a text that fits; `…` marks a part that is left out at its end."""
    if width(text) <= columns:
        return text
    return _head(text, columns - 1) + "…" if columns > 0 else ""


def cut_middle(text: str, columns: int) -> str:
    """Return a text that fits; `…` marks a part that is left out in its middle."""
    if width(text) <= columns:
        return text
    tail = _head(text[::-1], (columns - 1) // 2)[::-1]
    return _head(text, columns - 1 - width(tail)) + "…" + tail if columns > 0 else ""


def _head(text: str, columns: int) -> str:
    taken = 0
    for number, char in enumerate(text):
        taken += _of(char)
        if taken > columns:
            return text[:number]
    return text


def shortened(rows: Sequence[Sequence[str]], which: Sequence[int], over: int) -> list[list[str]]:
    """Shorten the names in a table until it is narrower by so many columns.

    Args:
        rows: The cells, with the heads.
        which: The columns that may be shortened; the widest is shortened first.
        over: By how many columns the table is too wide; names are never shorter than a limit.
    """
    widths = [max(map(width, cells)) for cells in zip(*rows, strict=True)]
    for _ in range(over):
        widest = max(which, key=lambda column: widths[column])
        if widths[widest] <= _LEAST:
            break
        widths[widest] -= 1
    return [
        [cut_middle(cell, room) for cell, room in zip(row, widths, strict=True)] for row in rows
    ]
