"""`distrun logs`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from distrun.api.runs import RunDirectory


def logs(
    run: str = typer.Argument("latest", help="Its name, any part of it, a path, or latest."),
    rank: str = typer.Option(None, "--rank", "-r", metavar="R[,R-R]", help="These ranks only."),
    prefix: bool = typer.Option(None, help="Name the rank before a line [if there are several]."),
    follow: bool = typer.Option(False, "--follow", "-f", help="Go on until the run ends."),
    runs_dir: Path = typer.Option(Path("runs"), help="Where runs are recorded."),
    json: bool = typer.Option(False, "--json", help="Print each line as JSON; -f: each event."),
) -> None:
    """Print the output of the ranks of a running or finished run."""
    from distrun.api import runs
    from distrun.cli.rank_list import rank_list
    from distrun.cli.screen.console import Console, say
    from distrun.cli.screen.show_run import RunView
    from distrun.errors import UsageError

    directory, record = runs.find(runs_dir, run, say)
    if follow and record.job:
        sys.exit(_follow_job(directory, rank, prefix, json))
    if not follow:
        record = runs.bring_up_to_date(directory, record, say)
    world_size = record.nnodes * record.nproc_per_node
    ranks = rank_list("--rank", rank, world_size)
    if prefix is None:
        prefix = len(range(world_size) if ranks is None else ranks) > 1
    view = RunView(directory, Console(), only_ranks=ranks, prefix=prefix, as_json=json)
    if not follow:
        for node, one in directory.rank_logs():
            view.add_rank(node, one)
        view.print_logs()
        view.leave_if_nobody_reads()
        return
    ended = None
    try:
        for event in runs.events(directory, follow=True):
            view.on_event(event)
            view.leave_if_nobody_reads()
            if event.get("event") == "ended":
                ended = event
    except KeyboardInterrupt:
        sys.exit(130)  # this interrupts the view, not the run
    if ended is not None:
        _finish(directory, view.finish, ended)
    else:
        raise UsageError(
            f"run {directory.run_id} is lost: its supervisor ended and recorded no outcome",
            f"see {directory.supervisor_log}",
        )


def _finish(run: RunDirectory, show: Callable[[Mapping[str, Any]], None], ended: Any) -> None:
    """Show the end of a run; the file that tells of it may come from elsewhere.

    Raises:
        UsageError: It does not tell how the run ended.
    """
    from distrun.errors import UsageError

    try:
        show(ended)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UsageError(f"{run.events} does not say how the run ended: {error!r}") from None


def _follow_job(run: RunDirectory, rank: str | None, prefix: bool | None, as_json: bool) -> int:
    """Follow a run that was submitted; it may have several attempts."""
    from distrun.api import runs
    from distrun.cli.follow_job import Following, Shown

    following = Following(run, Shown(rank, prefix, fold=False, quiet=False, json=as_json))
    try:
        for event in runs.events(run, follow=True):
            if event.get("event") == "ended":
                _finish(run, following.take, event)
            else:
                following.take(event)
            following.leave_if_nobody_reads()
    except KeyboardInterrupt:
        return 130  # this interrupts the view, not the run
    return 0
