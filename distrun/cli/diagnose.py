"""`distrun diagnose`."""

from __future__ import annotations

import json as json_format
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from distrun.cli import output_file

if TYPE_CHECKING:
    from distrun.api.diagnose import Diagnosis, Row

_COLUMNS = ("time", "group", "#", "collective", "tensor", "ranks", "state")
_SPARE = ("time", "tensor")
"""Left out first on a narrow terminal."""
_NAMES = ("group", "collective", "tensor", "ranks", "state")
"""Shortened if that is not enough."""


def diagnose(
    run: list[str] = typer.Argument(
        None,
        metavar="[RUN|DIR|FILES]",
        help="A run: its name, any part of it, a path, or latest; or a directory or files of dumps"
        " that torch's flight recorder has written.",
    ),
    runs_dir: Path = typer.Option(Path("runs"), help="Where runs are recorded."),
    last: int = typer.Option(
        10, min=0, metavar="N", help="How many collectives of each rank to show."
    ),
    trace: Path = typer.Option(None, metavar="FILE", help="Write the record for ui.perfetto.dev."),
    json: bool = typer.Option(False, "--json", help="Print it as JSON."),
) -> None:
    """Say which rank the others waited for when a job hung; exit code 1 if one is named."""
    from distrun.api.diagnose import diagnose as ask
    from distrun.cli.screen.console import plain, say

    if trace:
        output_file.require_writable(trace)
    found = ask(run or (), runs_dir=runs_dir, last=last, tell=say)
    if trace:
        output_file.write(trace, json_format.dumps(found.trace()) + "\n")
    if json:
        typer.echo(json_format.dumps(_as_json(found)))
    else:
        _show(found)
        if trace:
            say(plain(f"{trace} is written: open it at ui.perfetto.dev"))
    if found.is_wrong:
        raise typer.Exit(1)


def _show(found: Diagnosis) -> None:
    from distrun.cli.screen import render
    from distrun.cli.screen.call_paths import call_path_lines
    from distrun.cli.screen.console import plain

    render.prose(plain(found.verdict.sentence))
    if found.verdict.note:
        render.prose(plain(f"note: {found.verdict.note}"))
    if found.timeline:
        typer.echo("\nthe last collectives:")
        rows = [_cells(row, found) for row in found.timeline]
        render.table(_COLUMNS, rows, right="#", spare=_SPARE, names=_NAMES)
    if found.groups:
        typer.echo("\nwhere the ranks were:")
        for line in call_path_lines(found.groups, found.hosts):
            typer.echo(plain(line))


def _cells(row: Row, found: Diagnosis) -> tuple[str, ...]:
    from distrun.frames import span

    whole = len(row.called) + len(row.missing)
    ranks = span(row.called) if row.missing or whole < len(found.witnesses) else "all"
    return (
        _clock(row.first_ns),
        row.group,
        str(row.seq),
        row.op,
        row.tensor,
        ranks,
        "; ".join(_state(row)),
    )


def _state(row: Row) -> Iterator[str]:
    from distrun.frames import span

    if row.missing:
        yield f"not called by {span(row.missing)}"
    if not row.waiting:
        yield "done"
    elif len(row.waiting) < len(row.called):
        yield f"not done on {span(row.waiting)}"
    elif not row.missing:
        yield "not done"
    if row.unknown:
        yield f"no record of {span(row.unknown)}"


def _clock(time_ns: int) -> str:
    """Return the time of day with milliseconds; "" if it is not known or is no time."""
    try:
        whole = time.strftime("%H:%M:%S", time.localtime(time_ns // 10**9))
    except (OverflowError, OSError, ValueError):
        return ""
    return f"{whole}.{time_ns // 10**6 % 1000:03d}" if time_ns else ""


def _as_json(found: Diagnosis) -> dict[str, Any]:
    from distrun.cli.screen.call_paths import as_json

    return {
        "source": found.source,
        "verdict": found.verdict.to_json(),
        "timeline": [row.to_json() for row in found.timeline],
        "groups": as_json(found.groups),
        "hosts": found.hosts,
    }
