"""Runs a job to its end, for `launch` and `bench-comm`."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from distrun.cli.job_warning import JobWarning
from distrun.errors import DistrunError, ExitCode
from distrun.signals import ENDING, FORWARDED, STOPPING

if TYPE_CHECKING:
    from distrun.api.launch import LaunchPlan, LaunchResult, Prepared, SupervisorClient
    from distrun.api.runs import RunDirectory
    from distrun.cli.debug_rank import TerminalForRank
    from distrun.cli.stdin import StdinForRank

_TICK_S = 0.25
_DEAF_S = 2.5
_ANSWERS = ("stopping", "signal_repeated")


class View(Protocol):
    """Shows a run."""

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Handle one event; an empty one means that logs may have grown."""

    def finish(self, ended: Mapping[str, Any]) -> None:
        """Show the rest of the output, and how the run ended."""


def run_to_end(
    prepared: Prepared,
    make_view: Callable[[RunDirectory], View],
    *,
    quiet: bool,
    apart: bool = False,
    tick_s: float = _TICK_S,
) -> LaunchResult:
    """Start a job, show it, pass signals on, and return how it ended.

    The nodes that have dialed in end with its exit code.

    Args:
        prepared: The job.
        make_view: Makes the view of the run.
        quiet: Do not print remarks on the plan.
        apart: Keep the ranks' stdout and stderr apart.
        tick_s: How often the view gets an empty event, if there is no other.
    """
    code = int(ExitCode.INTERNAL)
    try:
        result = _run(prepared, make_view, quiet=quiet, apart=apart, tick_s=tick_s)
        code = result.exit_code
    except DistrunError as error:
        code = error.exit_code
        raise
    finally:
        if prepared.head is not None:
            prepared.head.end(code)
    return result


def _run(
    prepared: Prepared,
    make_view: Callable[[RunDirectory], View],
    *,
    quiet: bool,
    apart: bool,
    tick_s: float,
) -> LaunchResult:
    from distrun.api.launch import result_of, start
    from distrun.cli.screen.console import say

    plan = prepared.plan
    warning = JobWarning(prepared.submitted)
    with _input_of(plan) as given:
        patience = _Patience(warning, interrupts=plan.debug_rank is None)
        for signum in (
            *STOPPING,
            *ENDING,
            *FORWARDED,
        ):  # before the run is recorded: from then on it may be stopped
            if signal.getsignal(signum) != signal.SIG_IGN:  # nohup stays nohup
                signal.signal(signum, patience.on_signal)
        client = start(prepared, command=sys.argv, streams=replace(given.streams, apart=apart))
        patience.attach(client)
        if plan.debug_rank is not None:
            signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # else the shell would read too
        if not quiet:
            for note in plan.notes:
                say(note)
            for word in plan.program.args:
                if word.partition("=")[0] in ("--nodes", "--nproc-per-node"):
                    say(f"{word} stands after the script, so it is the script's own")
        view = make_view(client.run)
        ended: dict[str, Any] = {}
        for event in client.events(tick_s):
            view.on_event(event)
            patience.check(event)
            warning.check(client)
            for signum in prepared.head.news() if prepared.head else ():
                patience.on_signal(signum, None)
            if event.get("event") == "ended":
                ended = event
    result = result_of(client, ended)
    view.finish(ended or {**vars(result), "run_dir": str(result.run_dir)})
    if said := warning.after(result):
        say(said)
    return result


def _input_of(plan: LaunchPlan) -> StdinForRank | TerminalForRank:
    from distrun.cli.debug_rank import TerminalForRank
    from distrun.cli.stdin import StdinForRank

    if plan.debug_rank is None:
        return StdinForRank(0, from_terminal=plan.world_size == 1)
    if any(node.command for node in plan.nodes):  # no descriptor reaches another machine
        return StdinForRank(plan.debug_rank, from_terminal=True)
    return TerminalForRank(plan.debug_rank)


class _Patience:
    """Passes signals on, and kills a supervisor that does not react to a second one.

    The supervisor decides whether a second signal repeats the first or kills the ranks, and
    sends an event in both cases.

    Args:
        warning: Is told of each signal.
        interrupts: Ctrl-C ends the run, because no rank has the terminal.
    """

    def __init__(self, warning: JobWarning | None = None, *, interrupts: bool) -> None:
        self._warning = warning or JobWarning(None)
        self._counted = {*STOPPING, *ENDING} - ({signal.SIGINT} if not interrupts else set())
        self._client: SupervisorClient | None = None
        self._early: list[int] = []
        self._stops = 0
        self._kill_at: float | None = None

    def attach(self, client: SupervisorClient) -> None:
        """Pass on the signals that came before the supervisor was started."""
        self._client = client
        for signum in self._early:
            self.on_signal(signum, None)

    def on_signal(self, signum: int, _: object) -> None:
        if self._client is None:
            self._early.append(signum)
            return
        self._client.signal(signum)
        self._warning.on_signal(signum)
        if signum in self._counted:
            self._stops += 1
            if self._stops > 1 and self._kill_at is None:
                self._kill_at = time.monotonic() + _DEAF_S

    def check(self, event: Mapping[str, Any]) -> None:
        """Handle an event; kill the supervisor if it has not reacted in time."""
        if event.get("event") in _ANSWERS:
            self._kill_at = None
        if self._client and self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._client.kill()
