"""`distrun stop`."""

from __future__ import annotations

import dataclasses
import json as json_format
from pathlib import Path

import typer


def stop(
    run: str = typer.Argument("latest", help="Its name, any part of it, a path, or latest."),
    force: bool = typer.Option(False, "--force", help="Kill the ranks without a grace."),
    runs_dir: Path = typer.Option(Path("runs"), help="Where runs are recorded."),
    json: bool = typer.Option(False, "--json", help="Print its record as JSON."),
) -> None:
    """Stop a running run as SIGTERM would, and wait for its end."""
    from distrun.api import runs
    from distrun.cli.screen.console import say

    directory, _ = runs.find(runs_dir, run, say)
    record = runs.stop(directory, force=force)
    if json:
        typer.echo(json_format.dumps({**dataclasses.asdict(record), "state": record.state}))
    elif not record.is_over:
        say(f"{record.run_id} has been told to stop and has not ended yet")
    else:
        say(f"{record.run_id}: {record.outcome or record.state}, {record.summary}")
        if record.hint:
            say(f"hint: {record.hint}")
        if record.where:
            say(f"where the ranks were: {record.where}")
