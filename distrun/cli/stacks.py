"""`distrun stacks`."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from distrun.api.stacks import Whereabouts


def stacks(
    run: str = typer.Argument("latest", help="Its name, any part of it, a path, or latest."),
    runs_dir: Path = typer.Option(Path("runs"), help="Where runs are recorded."),
    json: bool = typer.Option(False, "--json", help="Print it as JSON."),
) -> None:
    """Print where the ranks of a running run are now; the run goes on."""
    from distrun.api import runs
    from distrun.api.stacks import stacks as ask
    from distrun.cli.screen.console import plain, say

    directory, _ = runs.find(runs_dir, run, say)
    found = ask(directory)
    if json:
        typer.echo(json_format.dumps(_as_json(found)))
        return
    for line in _lines(found):
        typer.echo(plain(line))
    if found.groups:
        say(f"the stacks of each rank: {directory.stacks(0).path.parent}/rank*.txt")


def _lines(found: Whereabouts) -> Iterator[str]:
    from distrun.cli.screen.call_paths import call_path_lines, who

    yield from call_path_lines(found.groups, found.hosts, found.collectives)
    for silent in found.silent:
        yield who([silent.rank], found.hosts)
        yield f"    wrote no stacks: {silent.why}"
    if not found.hosts:
        yield "no rank runs"


def _as_json(found: Whereabouts) -> dict[str, object]:
    from distrun.cli.screen.call_paths import as_json

    groups = as_json(found.groups)
    silent = [{"rank": s.rank, "host": s.host, "why": s.why} for s in found.silent]
    return {
        "run_id": found.run_id,
        "hosts": found.hosts,
        "groups": groups,
        "collectives": found.collectives,
        "silent": silent,
    }
