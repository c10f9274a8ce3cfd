"""Fewer points for a plot that show the same: of each part the first, the least, the greatest,
the last.

A plot is some hundred pixels wide. Parts of equal width on the x axis become one column each, and
a column is drawn from its least to its greatest value, so no spike disappears (the idea is M4,
Jugel et al., "M4: A Visualization-Oriented Time Series Data Aggregation", VLDB 2014).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

Point = tuple[float, float]


def decimated(xs: Sequence[float], ys: Sequence[float], parts: int) -> list[int]:
    """Return the indices of the points to draw, in order; all of them if they are few.

    Args:
        xs: Positions, which never decrease.
        ys: Values; those that are not finite are left out.
        parts: Parts of the x axis; at most four points of each are kept.
    """
    there = [i for i, y in enumerate(ys) if math.isfinite(y)]
    if len(there) <= 4 * parts:
        return there
    return [i for column in _columns(xs, there, parts) for i in _corners(column, ys)]


def means(xs: Sequence[float], ys: Sequence[float], parts: int) -> list[Point]:
    """Return the mean of each part; [] if `decimated` leaves nothing out."""
    there = [i for i, y in enumerate(ys) if math.isfinite(y)]
    if len(there) <= 4 * parts:
        return []
    return [
        (math.fsum(xs[i] for i in own) / len(own), math.fsum(ys[i] for i in own) / len(own))
        for own in _columns(xs, there, parts)
    ]


def _columns(xs: Sequence[float], there: list[int], parts: int) -> Iterator[list[int]]:
    """Yield the indices of each part that has some."""
    low, high = xs[there[0]], xs[there[-1]]
    width = (high - low) / parts or 1.0
    for _, own in groupby(there, lambda i: min(parts - 1, int((xs[i] - low) / width))):
        yield list(own)


def _corners(part: list[int], ys: Sequence[float]) -> list[int]:
    least, greatest = min(part, key=ys.__getitem__), max(part, key=ys.__getitem__)
    return sorted({part[0], least, greatest, part[-1]})
