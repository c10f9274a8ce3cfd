"""A curve as a row of bars."""

from __future__ import annotations

import math
from collections.abc import Iterable

_BARS = "▁▂▃▄▅▆▇█"


def bars(values: Iterable[float], width: int = 10) -> str:
    """Draw a curve in about so many characters, with a gap where it is not finite."""
    every = list(values)
    drawn = every[:: max(1, len(every) // width)]
    finite = [value for value in drawn if math.isfinite(value)] or [0.0]
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    return "".join(
        _BARS[round((len(_BARS) - 1) * (value - low) / span)] if math.isfinite(value) else " "
        for value in drawn
    )
