"""Collects what rank 0 prints, while a status line shows that the job runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from distrun.cli.screen.show_run import RunView
from distrun.cli.screen.tail import LogTail

if TYPE_CHECKING:
    from distrun.api.runs import Part, RunDirectory
    from distrun.cli.screen.console import Console


class CollectingView:
    """Shows a job whose output is data.

    Args:
        run: The run.
        console: Shows the status line.
        take: Gets each line of rank 0.
        status: Returns the text of the status line.
    """

    def __init__(
        self,
        run: RunDirectory,
        console: Console,
        take: Callable[[bytes], None],
        status: Callable[[], str],
    ) -> None:
        self._ending = RunView(run, console, quiet=True)
        self._console = console
        self._take_line, self._status = take, status
        self._log = LogTail(run.log(0, 0), run.streams(0, 0))

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
                self._take_line(line)
