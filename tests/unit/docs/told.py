"""Compares what a program prints with what a page says of it.

An ellipsis of the page stands for anything. Times, sizes, measured numbers, ids, dates and versions
are not compared.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.unit.docs.pages import blocks_of

_UNEQUAL = (
    (r"\d{8}-\d{6}-([\w.]+)-[0-9a-f]{4}", r"RUN-\1"),
    (r"\d\d(\d\d-)?\d\d-\d\d \d\d:\d\d(:\d\d)?|\d\d-\d\d \d\d:\d\d", "DATE"),
    (r"\d\d:\d\d:\d\d\.\d+", "TIME"),
    (r"Linux-\S+", "SYSTEM"),
    (r"\d+\.\d+\.\d+(\+\w+)?", "VERSION"),
    (r"(pid|port) \d+", r"\1 N"),
    (r"[▁▂▃▄▅▆▇█]+", "CURVE"),
    (r"\b\d+(\.\d+)?(e[+-]?\d+)?(?= (s|ms|µs|kB|KiB|MiB|GiB|GB/s|samples/s|%)\b| %)", "N"),
    (r"\b\d+\.\d+(e[+-]?\d+)?\b|\b\d{4,}\b", "N"),
    (r"graph\.py:\d+", "graph.py:N"),
    (r'File "[^"]*/', 'File "'),
    (r"(?m)^[ ~^]+$", ""),  # Python 3.13 marks the place in a line of a traceback
    # of a busy machine
    (r"(?m)^distrun: (waiting .* for nodes|node0: .* for ).*$", ""),
    (r"(?m)^distrun: rank \d+ has raised .* has not ended.*$", ""),
    (r"its steps (take|last) .*", "its steps"),
    (r"norm \S+|loss \S+", "N"),
)


def words_of(text: str) -> str:
    """Return a text without what differs from run to run, its words apart by one space."""
    for pattern, instead in _UNEQUAL:
        text = re.sub(pattern, instead, text)
    return " ".join(text.split())


def is_as_told(printed: str, told: str) -> bool:
    """Return whether an output is what the page says, with the ellipses filled in."""
    if not told.strip():
        return True
    parts = [re.escape(words_of(part)) for part in told.split("…")]
    return re.fullmatch(" ?.* ?".join(parts), words_of(printed)) is not None


def said_on(page: Path, words: str) -> str:
    """Return what the one console block with some words prints, without its commands."""
    (found,) = (block for block in blocks_of(page) if words in block.text)
    return re.sub(r"(?m)^\$ .*\n", "", found.text)
