"""Shows the progress of a benchmark: the row, how many are left, and for how long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from distrun.cli.bench.table import size
from distrun.cli.screen.render import duration

if TYPE_CHECKING:
    from distrun.api.bench_comm import Collected

_BAR = 20


class Progress:
    """The status line of a benchmark.

    Args:
        collected: Has the lines that came.
    """

    def __init__(self, collected: Collected) -> None:
        self._collected = collected
        self._began_at: float | None = None

    def __call__(self) -> str:
        """Return the text for this moment."""
        told = self._collected
        if not told.begin or told.ended:
            return ""
        now = time.monotonic()
        self._began_at = self._began_at or now
        rows, done = told.begin["rows"], told.rows_done
        bar = "█" * (_BAR * done // max(1, rows))
        text = f"{bar:░<{_BAR}} {done}/{rows} rows"
        if done:
            left_s = (now - self._began_at) / done * (rows - done)
            text += f" · {duration(left_s)} left"
        if told.lines["row"]:
            last = told.lines["row"][-1]
            text += f" · {last['op']} {size(last['nbytes'])}"
        return text
