"""`distrun estimate`."""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from distrun.cli import output_file
from distrun.errors import UsageError

if TYPE_CHECKING:
    from distrun.api.estimate import Asked

NO_FIT = 1
"""Exit code where the job does not fit."""


def estimate(
    words: list[str] = typer.Argument(
        None,
        metavar="[SCRIPT] [FLAGS]",
        help="A recipe of the GPT or a copy of one, and its own flags, as for launch.",
    ),
    gpus: str = typer.Option(None, metavar="8x8:h100", help="Nodes x GPUs of a node : kind."),
    nodes: int = typer.Option(None, metavar="N", help="Nodes [1]."),
    nproc_per_node: int = typer.Option(None, metavar="N", help="GPUs, and ranks, of a node [1]."),
    kinds: Path = typer.Option(None, metavar="FILE", help="TOML with kinds of GPUs of your own."),
    dims: str = typer.Option(
        None,
        metavar="K=V,…",
        help="Dimensions of the model: layers, dim, heads, ffn, vocab; kv_heads, tied, gated, …",
    ),
    best: bool = typer.Option(False, "--best", help="Search the best layout for these GPUs."),
    trace: bool = typer.Option(
        False, "--trace", help="Run the script's own step without ranks and GPUs; any script."
    ),
    exact: bool = typer.Option(False, "--exact", help="With --trace: all layers, not 2 and 3."),
    calibrate: Path = typer.Option(
        None, metavar="BENCH.json", help="A report of bench-comm from these nodes."
    ),
    anchor: Path = typer.Option(
        None, metavar="RUN", help="The directory of a run: its measured step scales the time."
    ),
    tokens: float = typer.Option(None, metavar="N", help="Tokens of the training: days and hours."),
    price: float = typer.Option(None, metavar="X", help="Of a GPU hour: the cost."),
    json: bool = typer.Option(False, "--json", help="Print everything as JSON."),
    svg: Path = typer.Option(None, metavar="FILE", help="Draw the memory into an SVG file."),
) -> None:
    """Say what a job will need and take before it runs: memory, step time, cost.

    Exit code 1: it does not fit.
    """
    from distrun.api.estimate import Asked
    from distrun.api.estimate import estimate as by_formula
    from distrun.api.traced import traced

    if svg is not None:
        if svg.suffix.lower() != ".svg":
            raise UsageError(f"--svg {svg}: the name has to end in .svg", f"--svg {svg}.svg")
        output_file.require_writable(svg)
    asked = Asked(
        words=tuple(words or ()),
        gpus=gpus,
        nodes=nodes,
        nproc_per_node=nproc_per_node,
        dims=dims,
        kinds=kinds,
        calibrate=calibrate,
        anchor=anchor,
        tokens=tokens,
        price=price,
        exact=exact,
    )
    if exact and not trace:
        raise UsageError("--exact is of a trace", "--trace --exact")
    if trace and (best or dims is not None):
        raise UsageError(f"--trace does not go with {'--best' if best else '--dims'}")
    if best:
        sys.exit(_advise(asked, as_json=json))
    found = traced(asked) if trace else by_formula(asked)
    if svg is not None:
        from distrun.cli.estimate.picture import draw

        output_file.write(svg, draw(found))
    if json:
        from distrun.api.estimate import as_json

        typer.echo(json_format.dumps(as_json(found), indent=1))
    else:
        from distrun.cli.estimate import view

        view.show(found)
    sys.exit(NO_FIT if found.found.memory.verdict == "does not fit" else 0)


def _advise(asked: Asked, *, as_json: bool) -> int:
    from distrun.api.advised import TRACED, advice_as_json, advise, can_trace, checked

    found, advice = advise(asked)
    if advice.winner is not None and can_trace(found):
        if sys.stderr.isatty():
            typer.echo(f"{advice.tried} layouts tried; tracing the first {TRACED}", err=True)
        advice = checked(found, advice)
    if as_json:
        typer.echo(json_format.dumps(advice_as_json(found, advice), indent=1))
    else:
        from distrun.cli.estimate import table

        table.show(found, advice)
    return 0 if advice.winner else NO_FIT
