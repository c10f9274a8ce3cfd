"""Fewer points for a plot that show the same: of each part the first, the least, the greatest,
the last.

A plot is some hundred pixels wide. Parts of equal width on the x axis become one column each, and
a column is drawn from its least to its greatest value, so no spike disappears (the idea is M4,
Jugel et al., "M4: A Visualization-Oriented Time Series Data Aggregation", VLDB 2014).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
    low, high = xs[there[0]], xs[there[-1]]
    width = (high - low) / parts or 1.0
    kept: list[int] = []
    part: list[int] = []
    at = 0
    for i in there:
        column = min(parts - 1, int((xs[i] - low) / width))
        if column != at and part:
            kept += _corners(part, ys)
            part = []
        at = column
        part.append(i)
    return kept + _corners(part, ys)


def _corners(part: list[int], ys: Sequence[float]) -> list[int]:
    least, greatest = min(part, key=ys.__getitem__), max(part, key=ys.__getitem__)
    return sorted({part[0], least, greatest, part[-1]})
