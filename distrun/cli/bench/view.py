"""Shows the progress of a benchmark: the row, how many are left, and for how long."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from distrun.cli.bench.table import size
from distrun.cli.screen.render import duration
from distrun.cli.screen.show_run import RunView
from distrun.cli.screen.tail import LogTail

if TYPE_CHECKING:
    from distrun.api.bench_comm import Collected
    from distrun.api.runs import Part, RunDirectory
    from distrun.cli.screen.console import Console

_BAR = 20


class BenchView:
    """Collects rank 0's lines, and shows the progress.

    Args:
        run: The run.
        console: Shows the status line.
        collected: Gets the lines.
    """

    def __init__(self, run: RunDirectory, console: Console, collected: Collected) -> None:
        self._ending = RunView(run, console, quiet=True)
        self._console = console
        self._collected = collected
        self._log = LogTail(run.log(0, 0), run.streams(0, 0))
        self._began_at: float | None = None

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Handle an event of the run, and the new lines of rank 0."""
        self._ending.on_event(event)
        self._take(self._log.read())
        self._console.status(self._status())

    def finish(self, ended: Mapping[str, Any]) -> None:
        """Handle the last lines; print how the run ended, if it failed."""
        self.on_event({})
        self._take(self._log.close())
        self._console.status("")
        self._ending.finish(ended)

    def _take(self, parts: Iterable[Part]) -> None:
        for part in parts:
            for line in part.data.splitlines():
                self._collected.take(line)

    def _status(self) -> str:
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
