"""`distrun report`."""

from __future__ import annotations

import json as json_format
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from distrun.cli import output_file

if TYPE_CHECKING:
    from distrun.api.report import Comparison


def report(
    names: list[str] = typer.Argument(
        None,
        metavar="[RUN|RUNS]",
        help="Its name, any part of it, a path, or latest; several runs are compared.",
    ),
    runs_dir: Path = typer.Option(Path("runs"), help="Where runs are recorded."),
    output: Path = typer.Option(
        None, "-o", "--output", metavar="FILE", help="Where to write it [report.html of the run]."
    ),
    json: bool = typer.Option(False, "--json", help="Print what it tells as JSON, write no page."),
) -> None:
    """Write a run's report as one HTML file, or compare runs."""
    from distrun.api import report as api
    from distrun.cli.screen.console import say
    from distrun.cli.screen.verdict import shown

    if output:
        output_file.require([output], (".html",))
    if len(names or ()) > 1:
        _compare(names, runs_dir, output, json)
        return
    found = api.report(names[0] if names else "latest", runs_dir=runs_dir, tell=say)
    if json:
        typer.echo(json_format.dumps(found.data))
        return
    if output:
        output_file.write(output, found.html)
    path = output or api.save(found)
    typer.echo(shown(path))


def _compare(names: list[str], runs_dir: Path, output: Path | None, json: bool) -> None:
    from distrun.api import report as api
    from distrun.cli.screen.console import say

    found, html = api.compare(names, runs_dir=runs_dir, tell=say)
    if json:
        typer.echo(json_format.dumps(found.data))
        return
    _show(found)
    path = output or Path(_file_name([each["run"] for each in found.data["runs"]]))
    output_file.write(path, html)
    say(f"the curves over one another are in {shlex.quote(str(path))}")


def _file_name(run_ids: list[str]) -> str:
    """Return `compare-8f81-a192.html`."""
    ends = [re.sub(r"\W", "", name)[-4:] for name in run_ids[:4]]
    return f"compare-{'-'.join(ends)}.html"


def _show(found: Comparison) -> None:
    from distrun.cli.screen import render
    from distrun.cli.screen.console import plain

    columns = ("run", *found.columns)
    rows = [(row[0], *row[1:]) for row in found.rows]
    render.table(columns, rows, spare=("tokens/s", "samples/s", "peak memory"), names=("run",))
    for line in found.sentences:
        render.prose(plain(line))
    if found.differences:
        typer.echo("")
        heads = ("differs", *found.heads)
        render.table(heads, found.differences, names=found.heads)
