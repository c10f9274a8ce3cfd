"""`distrun check --deep`: runs the small job, and shows what it measured."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from distrun.cli.bench.table import digits
from distrun.cli.run_to_end import run_to_end
from distrun.cli.screen.collecting import CollectingView
from distrun.cli.screen.console import Console, plain
from distrun.cli.screen.render import table
from distrun.errors import ExitCode

if TYPE_CHECKING:
    from distrun.api.check import Measured
    from distrun.spec.job import Settings

_STOPPED = (ExitCode.HUNG_UP, ExitCode.INTERRUPTED, ExitCode.TERMINATED)
_STATUS = "a small job: products, copies, an all_reduce, all pairs"


def measure(settings: Settings) -> Measured:
    """Run the job to its end, and return what it measured; a failure has been printed."""
    from distrun.api.deep import Told, prepare_deep

    told = Told()
    prepared = prepare_deep(settings)
    result = run_to_end(
        prepared,
        lambda run: CollectingView(run, Console(), told.take, lambda: _STATUS),
        quiet=True,
    )
    if result.exit_code in _STOPPED:
        sys.exit(result.exit_code)
    return told.measured(result)


def show(measured: Measured) -> None:
    """Print what was measured."""
    if measured.ranks:
        with_copies = any(rank.copy_bandwidth is not None for rank in measured.ranks)
        columns = ["rank", "device", "TFLOP/s", *(["GB/s to it"] if with_copies else [])]
        rows = [
            [
                str(rank.rank),
                plain(rank.device),
                digits(rank.matmul_flops / 1e12),
                *([_gb_s(rank.copy_bandwidth)] if with_copies else []),
            ]
            for rank in measured.ranks
        ]
        table(columns, rows, right=columns[2:])
        typer.echo()
    if measured.all_reduce_s is not None:
        time_us = digits(measured.all_reduce_s * 1e6)
        many = len(measured.ranks)
        typer.echo(f"8-byte all_reduce of {many} ranks over {measured.backend}: {time_us} µs")
    if measured.links:
        typer.echo(f"GB/s between every two {measured.links_over}s, messages of 1 MiB:")
        columns, cells = _matrix(measured)
        table(columns, cells, right=columns[1:])


def _gb_s(bandwidth: float | None) -> str:
    return digits(None if bandwidth is None else bandwidth / 1e9)


def _matrix(measured: Measured) -> tuple[list[str], Iterator[list[str]]]:
    ends = sorted({end for link in measured.links for end in (link.a, link.b)})
    found = {frozenset((link.a, link.b)): _gb_s(link.bandwidth) for link in measured.links}
    cells = ([str(a), *(found.get(frozenset((a, b)), "") for b in ends)] for a in ends)
    return [measured.links_over, *map(str, ends)], cells
