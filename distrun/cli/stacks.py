"""`distrun stacks`."""

from __future__ import annotations

import json as json_format
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from distrun.api.stacks import CallPath, Whereabouts


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
        say(f"all threads of each rank: {directory.stacks(0).path.parent}/rank*.txt")


def _lines(found: Whereabouts) -> Iterator[str]:
    for ranks, path in found.groups:
        yield _who(ranks, found)
        yield from (f"    {line}" for line in _calls(path))
    for silent in found.silent:
        yield _who([silent.rank], found)
        yield f"    wrote no stacks: {silent.why}"
    if not found.hosts:
        yield "no rank runs"


def _who(ranks: Sequence[int], found: Whereabouts) -> str:
    """Return `rank 3 on node1`, or `6 of 8 ranks: 0-2,4-6`."""
    from distrun.cli.screen.fold import span

    if len(ranks) == 1:
        return f"rank {ranks[0]} on {found.hosts[ranks[0]]}"
    return f"{len(ranks)} of {len(found.hosts)} ranks: {span(ranks)}"


def _calls(path: CallPath) -> Iterator[str]:
    """Yield a line for each call in the user's code, and one for where it is in a library."""
    places = [f"{_shown(frame.file)}:{frame.line}" for frame in path.user]
    width = max(map(len, places), default=0)
    for place, frame in zip(places, path.user, strict=True):
        called = path.called if frame is path.user[-1] else ""
        yield f"{place:<{width}}  {frame.function}{f' → {called}' if called else ''}"
    if path.library:
        inner = path.library[-1]
        yield f"in {inner.function} ({_shown(inner.file)}:{inner.line})"
    elif not path.user:
        yield "in no Python code"


def _shown(file: str) -> str:
    """Return a path as short as it can be read: from here, or from the package's name on."""
    for mark in ("/site-packages/", "/dist-packages/"):
        if mark in file:
            return file.rpartition(mark)[2]
    return file.removeprefix(f"{Path.cwd()}{os.sep}")


def _as_json(found: Whereabouts) -> dict[str, object]:
    groups = [
        {
            "ranks": ranks,
            "calls": [frame._asdict() for frame in path.user],
            "called": path.called,
            "library": [frame._asdict() for frame in path.library],
        }
        for ranks, path in found.groups
    ]
    silent = [{"rank": s.rank, "host": s.host, "why": s.why} for s in found.silent]
    return {"run_id": found.run_id, "hosts": found.hosts, "groups": groups, "silent": silent}
