"""`distrun ps`."""

from __future__ import annotations

import dataclasses
import json as json_format
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import typer

from distrun.cli import output_file
from distrun.errors import UsageError

if TYPE_CHECKING:
    from distrun.api.runs import RunRecord

    Listed: TypeAlias = dict[Path, list[tuple[RunRecord, str]]]
    """Runs directory -> the record and the state of each run in it."""

_COLUMNS = ("run", "state", "code", "ranks", "started", "time", "recipe")
_LOSS_COLUMNS = ("run", "state", "code", "time", "loss", "", "started", "recipe")
_BARS = 10
_CSV = (
    *("run_id", "state", "outcome", "exit_code", "nnodes", "nproc_per_node"),
    *("started_at", "ended_at", "recipe", "runs_dir"),
)


def ps(
    runs_dir: Path = typer.Option(Path("runs"), help="Where runs are recorded."),
    everywhere: bool = typer.Option(
        False, "--all", "-a", help="In every directory that launch has recorded runs in."
    ),
    running: bool = typer.Option(False, "--running", help="Only those that are going on."),
    last: int = typer.Option(
        None, "--last", metavar="N", min=1, help="The newest, each with the curve of its loss."
    ),
    prune: int = typer.Option(
        None, metavar="KEEP", min=0, help="Remove ended runs but the newest."
    ),
    json: bool = typer.Option(False, "--json", help="Print a JSON list."),
    output: list[Path] = typer.Option(
        None, "-o", "--output", metavar="FILE", help="Write it too: .json or .csv; repeatable."
    ),
) -> None:
    """List the recorded runs, the newest first."""
    from distrun.api import runs
    from distrun.cli.screen.console import say

    output_file.require(output, (".json", ".csv"))
    if prune is not None:
        if everywhere:
            raise UsageError("--all and --prune exclude each other", "one directory at a time")
        for name in runs.prune(runs_dir, prune, say):
            say(f"removed {name}")
        return
    found: Listed = {}
    jobs = runs.Jobs(say)
    for place in runs.runs_dirs(runs_dir) if everywhere else [runs_dir]:
        try:
            listed = [jobs.state_of(run, record) for run, record in runs.list_runs(place, say)]
        except UsageError as error:
            if not everywhere:
                raise
            say(error.message)  # an unreadable record must not hide the others
            continue
        found[place] = [each for each in listed if not (running and _is_over(*each))][:last]
    formats: output_file.Formats = {".json": lambda: _json(found), ".csv": lambda: _csv(found)}
    output_file.write_all(output, formats)
    if json:
        typer.echo(_json(found), nl=False)
    elif not any(found.values()):
        where = "" if everywhere else f" in {str(runs_dir)!r}"
        say(("no run is running" if running else "no run is recorded") + where)
    else:
        _show(found, with_places=everywhere, with_losses=last is not None)


def _is_over(record: RunRecord, state: str) -> bool:
    return state in ("ended", "lost", "unknown to Slurm", "unknown to this machine")


def _show(found: Listed, *, with_places: bool, with_losses: bool) -> None:
    """Print a table for each directory, the one with the newest run first."""
    from distrun.cli.screen import render
    from distrun.cli.screen.console import plain

    there = [(place, records) for place, records in found.items() if records]
    there.sort(key=lambda pair: pair[1][0][0].started_at, reverse=True)
    for number, (place, records) in enumerate(there):
        if with_places:
            typer.echo(("\n" if number else "") + plain(f"{place}:"))
        twice = ("recipe", "started")  # a run's name has both
        names = ("run", "state", "recipe")
        if with_losses:
            losses = (_row_with_loss(place, *each) for each in records)
            render.table(_LOSS_COLUMNS, losses, twice=twice, names=names)
        else:
            render.table(_COLUMNS, (_row(*each) for each in records), twice=twice, names=names)


def _row_with_loss(place: Path, record: RunRecord, state: str) -> tuple[str, ...]:
    from distrun.api import runs
    from distrun.cli.screen.bars import bars

    run, outcome, code, _, started, seconds, recipe = _row(record, state)
    losses = runs.loss_points(runs.RunDirectory(place.resolve() / record.run_id), _BARS)
    last = f"{losses[-1]:.4g}" if losses else ""
    return run, outcome, code, seconds, bars(losses, _BARS) if losses else "", last, started, recipe


def _row(record: RunRecord, state: str) -> tuple[str, ...]:
    from distrun.cli.screen.render import duration

    seconds = (record.ended_at or time.time()) - record.started_at
    tries = f" after {record.attempts - 1} restarts" if record.attempts > 2 else ""
    tries = " after a restart" if record.attempts == 2 else tries
    return (
        record.run_id,
        (record.outcome or state) + tries,
        "" if record.exit_code is None else str(record.exit_code),
        f"{record.nnodes}×{record.nproc_per_node or '?'}",
        time.strftime("%m-%d %H:%M", time.localtime(record.started_at)),
        duration(seconds) if state != "lost" else "?",
        record.recipe,
    )


def _all(found: Listed) -> list[dict[str, Any]]:
    """Return what is known about every run, the newest first."""
    every = [
        {**dataclasses.asdict(record), "state": state, "runs_dir": str(place.resolve())}
        for place, records in found.items()
        for record, state in records
    ]
    return sorted(every, key=lambda one: float(one["started_at"]), reverse=True)


def _json(found: Listed) -> str:
    return json_format.dumps(_all(found)) + "\n"


def _csv(found: Listed) -> str:
    from distrun.cli.screen.table_text import as_csv

    return as_csv(_CSV, ([one[name] for name in _CSV] for one in _all(found)))
