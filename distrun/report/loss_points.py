"""A few values of a run's loss, read without reading all of `metrics.jsonl`."""

from __future__ import annotations

import json
import os
from typing import BinaryIO

from distrun.report.lines import number
from distrun.runs.directory import RunDirectory

_TRIES = 256
"""Lines to look at for a loss behind each place: other ranks, evaluations and samples have none."""
_LINE_NBYTES = 1 << 16


def loss_points(run: RunDirectory, count: int) -> list[float]:
    """Return about so many values of the loss, spread evenly over the file, and the last one.

    Args:
        run: The run.
        count: How many.

    Returns:
        [] if the run has logged no loss.
    """
    try:
        with open(run.metrics.open(os.O_RDONLY), "rb") as file:
            size, rank = os.fstat(file.fileno()).st_size, _lowest_rank(file)
            found: dict[int, float] = {}
            for part in range(count):
                if (point := _next(file, size * part // count, rank)) is not None:
                    found[point[0]] = point[1]
            if last := _last(file, size, rank):
                found[last[0]] = last[1]
    except OSError:
        return []
    return [found[at] for at in sorted(found)]


def _lowest_rank(file: BinaryIO) -> int:
    """Return the lowest rank of the first lines with a loss: whose numbers are shown."""
    lines = (_loss(file.readline(_LINE_NBYTES)) for _ in range(_TRIES))
    return min((found[0] for found in lines if found), default=0)


def _next(file: BinaryIO, at: int, rank: int) -> tuple[int, float] | None:
    """Return the place and the value of the first loss behind a place."""
    file.seek(max(0, at - 1))
    if at:
        file.readline(_LINE_NBYTES)  # the rest of the line before
    for _ in range(_TRIES):
        begin = file.tell()
        if (found := _loss(file.readline(_LINE_NBYTES))) and found[0] == rank:
            return begin, found[1]
    return None


def _last(file: BinaryIO, size: int, rank: int) -> tuple[int, float] | None:
    begin = max(0, size - _LINE_NBYTES)
    file.seek(begin)
    at, found = begin, None
    for line in file.read(_LINE_NBYTES).splitlines(keepends=True):
        if (own := _loss(line)) and own[0] == rank:
            found = at, own[1]
        at += len(line)
    return found


def _loss(line: bytes) -> tuple[int, float] | None:
    """Return the rank and its loss; None if the line has none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or (value := number(record.get("loss"))) is None:
        return None
    rank = record.get("rank")
    return rank if type(rank) is int else 0, value
