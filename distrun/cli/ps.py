"""`distrun ps`."""

from __future__ import annotations

import dataclasses
import json as json_format
import time
from pathlib import Path

import typer


def ps(
    runs_dir: Path = typer.Option(Path("runs"), help="Where runs are recorded."),
    running: bool = typer.Option(False, "--running", help="Only those that are going on."),
    prune: int = typer.Option(
        None, metavar="KEEP", min=0, help="Remove ended runs but the newest."
    ),
    json: bool = typer.Option(False, "--json", help="Print a JSON list."),
) -> None:
    """List the recorded runs, the newest first."""
    from distrun.api import runs
    from distrun.cli import render
    from distrun.cli.console import say

    if prune is not None:
        for name in runs.prune(runs_dir, prune, say):
            say(f"removed {name}")
        return
    found = [r for _, r in runs.list_runs(runs_dir, say) if not (running and r.is_over)]
    if json:
        typer.echo(json_format.dumps([{**dataclasses.asdict(r), "state": r.state} for r in found]))
        return
    if not found:
        say(f"no run is recorded in {str(runs_dir)!r}")
        return
    rows = []
    for record in found:
        seconds = (record.ended_at or time.time()) - record.started_at
        rows.append(
            (
                record.run_id,
                record.outcome or record.state,
                "" if record.exit_code is None else str(record.exit_code),
                f"{record.nnodes}×{record.nproc_per_node}",
                time.strftime("%m-%d %H:%M", time.localtime(record.started_at)),
                render.duration(seconds) if record.state != "lost" else "?",
                record.recipe,
            )
        )
    render.table(("run", "state", "code", "ranks", "started", "time", "recipe"), rows)
