"""`distrun save`."""

from __future__ import annotations

import json as json_format
from pathlib import Path

import typer

_TIMEOUT_S = 600.0


def save(
    run: str = typer.Argument("latest", help="Its name, any part of it, a path, or latest."),
    runs_dir: Path = typer.Option(Path("runs"), help="Where runs are recorded."),
    timeout: float = typer.Option(_TIMEOUT_S, min=1, metavar="SECONDS", help="How long to wait."),
    json: bool = typer.Option(False, "--json", help="Print it as JSON."),
) -> None:
    """Ask a running run for a checkpoint, and wait until it is there; the run goes on."""
    from distrun.api import runs
    from distrun.api.save import save as ask
    from distrun.cli.screen.console import say

    directory, _ = runs.find(runs_dir, run, say)
    found = ask(directory, timeout_s=timeout, tell=say)
    if json:
        typer.echo(json_format.dumps(vars(found)))
    else:
        say(f"{found.run_id} has saved at step {found.step}, in {found.time_s:.1f} s")
