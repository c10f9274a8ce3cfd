"""What is to be measured, as the command line has worked it out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

Place = Literal["out", "in"]
Mode = Literal["latency", "throughput"]


@dataclass(frozen=True)
class Request:
    """One benchmark. It travels to the ranks as JSON on the program's command line."""

    ops: tuple[str, ...]
    """Names of `distrun.bandwidth.DEFINITIONS`, or barrier."""
    sizes: tuple[int, ...]
    """Bytes, as the definition of each op counts them; rounded to whole elements and parts."""
    dtype: str
    """As torch names it: float32."""
    redop: str
    root: int
    places: tuple[Place, ...]
    """Out of place, in place."""
    mode: Mode
    """latency: a barrier, then one iteration is timed; throughput: iterations are queued."""
    iterations: int
    warmup: int
    check: bool
    """Compare each result with what is known to be right."""
    budget_s: float
    """Iterations are cut so that all of it takes about as long."""
    backend: str | None
    timeout_s: float
    overlap: str | None = None
    """matmul: measure every row once more beside one."""

    def to_json(self) -> str:
        """Return it as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Return what `to_json` wrote."""
        values = json.loads(text)
        for name in ("ops", "sizes", "places"):
            values[name] = tuple(values[name])
        return cls(**values)
