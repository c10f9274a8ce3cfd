"""The block of JSON in a report, for programs: versioned, and safe inside a script element."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from distrun.report.decimate import decimated
from distrun.report.lines import Line

SCHEMA = "distrun.report/1"
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def series(lines: Mapping[Any, Line], parts: int, clean: Any) -> list[dict[str, Any]]:
    """Return the points that the charts show, with the whole count of each line."""
    found = []
    for line in lines.values():
        kept = decimated(line.steps, line.values, parts)
        found.append(
            {
                "name": clean(line.name),
                "rank": line.owner,
                "attempt": line.attempt,
                "count": len(line.values),
                "step": [short(line.steps[i]) for i in kept],
                "time": [round(line.times[i], 3) for i in kept],
                "value": [short(line.values[i]) for i in kept],
            }
        )
    return found


def short(value: float) -> float | int | str:
    """Return a number with seven digits, which a float32 has."""
    if not math.isfinite(value):
        return str(value)
    short = float(f"{value:.7g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def script_text(data: Mapping[str, Any], schema: str = SCHEMA) -> Markup:
    """Return JSON that no HTML parser takes for markup."""
    text = json.dumps({"schema": schema, **data}, allow_nan=False, separators=(",", ":"))
    for unsafe, escaped in _UNSAFE.items():
        text = text.replace(unsafe, escaped)
    return Markup(text)
