"""Follows the job of a run from the queue to its end: shows its output, answers signals."""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distrun.cli.rank_list import rank_list
from distrun.errors import DistrunError, ExitCode

if TYPE_CHECKING:
    from distrun.api.runs import RunDirectory, RunRecord
    from distrun.cli.screen.show_run import RunView

_TICK_S = 0.2
_BEFORE_THE_START = ("job", "said", "ended")
"""Events that come, too, when the number of ranks is not known yet."""


class Shown(NamedTuple):
    """What the console shows of a run; the flags of the same names."""

    only_rank: str | None
    prefix: bool | None
    fold: bool
    quiet: bool
    json: bool


def tell_how_to_go_on(run: RunDirectory) -> None:
    """Say how a run that goes on without this command is followed and stopped."""
    from distrun.cli.screen.console import say

    at = run.path.parent
    elsewhere = "" if Path("runs").resolve() == at else f" --runs-dir {shlex.quote(str(at))}"
    say(f"follow it with: distrun logs {run.run_id} -f{elsewhere}")
    say(f"stop it with: distrun stop {run.run_id}{elsewhere}")


def view_of(run: RunDirectory, record: RunRecord, shown: Shown) -> RunView:
    """Return the view of a run whose number of ranks is known."""
    from distrun.cli.screen.console import Console
    from distrun.cli.screen.show_run import RunView

    world_size = record.nnodes * record.nproc_per_node
    ranks = rank_list("--only-rank", shown.only_rank, world_size)
    prefix = shown.prefix
    if prefix is None:
        prefix = len(range(world_size) if ranks is None else ranks) > 1
    return RunView(
        run,
        Console(),
        only_ranks=ranks,
        prefix=prefix,
        fold=shown.fold,
        quiet=shown.quiet,
        as_json=shown.json,
    )


class Following:
    """Shows the events of a run: before it starts, those of its job alone.

    Args:
        run: The run.
        shown: What is shown of it.
    """

    def __init__(self, run: RunDirectory, shown: Shown) -> None:
        self._run = run
        self._shown = shown
        self._view: RunView | None = None

    def take(self, event: Mapping[str, Any]) -> None:
        """Show one event; an empty one means that logs may have grown."""
        if self._view is None and event and event["event"] not in _BEFORE_THE_START:
            self._view = self._made()
        if event.get("event") == "ended":
            (self._view or self._made()).finish(event)
        elif self._view is not None:
            self._view.on_event(event)
        elif event and self._shown.json:
            print(json.dumps(event), flush=True)
        elif event and not self._shown.quiet:
            from distrun.cli.screen.console import say

            if event["event"] == "said":
                print(event["line"], flush=True)
            else:
                say(event["message"])

    def leave_if_nobody_reads(self) -> None:
        """End the command if the pipe behind stdout is gone: for `logs`, which only shows."""
        if self._view is not None:
            self._view.leave_if_nobody_reads()

    def _made(self) -> RunView:
        from distrun.api.runs import find

        record = find(self._run.path.parent, str(self._run.path))[1]
        return view_of(self._run, record, self._shown)


class JobFollower:
    """Follows the job of a run that this command has submitted.

    A signal that would end a launch ends the job: its launcher alone first, all after the grace.
    On a terminal Ctrl-C asks, and the end of the terminal leaves the job running.

    Args:
        run: The run.
        record: Its record.
        shown: What is shown of it.
    """

    def __init__(self, run: RunDirectory, record: RunRecord, shown: Shown) -> None:
        from distrun.api import runs

        self._run = run
        self._following = Following(run, shown)
        self._stopper = runs.stopper(run, record)
        self._stopping = False
        self._signals: list[int] = []
        self._asks = os.isatty(0) and os.isatty(2)

    def to_end(self) -> int:
        """Follow it, and return the exit code."""
        from distrun.api import runs

        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            if signal.getsignal(signum) != signal.SIG_IGN:  # nohup stays nohup
                signal.signal(signum, lambda signum, _: self._signals.append(signum))
        for event in runs.events(self._run, follow=True):
            self._following.take(event)
            if event.get("event") == "ended":
                return int(event["exit_code"])
            while self._signals:
                if (code := self._on_signal(self._signals.pop(0))) is not None:
                    return code
            self._guarded(self._stopper.tick)
        raise AssertionError("a run that is followed has an end")

    def _on_signal(self, signum: int) -> int | None:
        """Handle a signal; return an exit code if the job is left running."""
        if signum == signal.SIGHUP and self._asks:
            return int(ExitCode.HUNG_UP)
        if not self._stopping:
            if signum == signal.SIGINT and self._asks and not self._is_to_be_cancelled():
                tell_how_to_go_on(self._run)
                return int(ExitCode.INTERRUPTED)
            self._stopping = True
            self._guarded(self._stopper.begin)
        elif signum == signal.SIGINT or not self._stopper.cancelled:
            self._guarded(self._stopper.cancel)
        return None

    def _is_to_be_cancelled(self) -> bool:
        """Ask on the terminal; a second Ctrl-C leaves the job running."""
        sys.stderr.write("\rthe job goes on without this command: [L]eave it, [c]ancel it? ")
        sys.stderr.flush()
        while not self._signals:
            if select.select([0], [], [], _TICK_S)[0]:
                return os.read(0, 1024).strip().lower().startswith(b"c")
        sys.stderr.write("\n")
        self._signals.clear()
        return False

    def _guarded(self, step: Any) -> None:
        """Do a step; a scheduler that does not answer must not end the view."""
        from distrun.cli.screen.console import say

        try:
            step()
        except DistrunError as error:
            say(error.message)
