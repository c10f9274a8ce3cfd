"""The request that the ranks measure, made from the command line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

Place = Literal["out", "in"]
Mode = Literal["latency", "throughput"]


@dataclass(frozen=True)
class Request:
    """One benchmark; passed to the ranks as JSON on the program's command line."""

    ops: tuple[str, ...]
    """Names of `distrun.bandwidth.DEFINITIONS`, or barrier."""
    sizes: tuple[int, ...]
    """Bytes, as each op's definition counts them; rounded to whole elements and parts."""
    dtype: str
    """torch's name: float32."""
    redop: str
    root: int
    places: tuple[Place, ...]
    """Out of place, in place."""
    mode: Mode
    """latency: a barrier, then one iteration is timed; throughput: iterations are queued."""
    iterations: int
    warmup: int
    check: bool
    """Compare each result with the known right result."""
    budget_s: float
    """Limits the iterations, so that the whole run takes about this long."""
    backend: str | None
    timeout_s: float
    overlap: str | None = None
    """matmul: measure every row again beside a matmul."""

    def to_json(self) -> str:
        """Return the request as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Return the request from `to_json`'s text."""
        values = json.loads(text)
        for name in ("ops", "sizes", "places"):
            values[name] = tuple(values[name])
        return cls(**values)
