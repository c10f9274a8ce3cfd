"""`distrun simulate`."""

from __future__ import annotations

import dataclasses
import json as json_format
from typing import TYPE_CHECKING

import typer

from distrun.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from distrun.api.simulate import Simulated


def simulate(
    nodes: int = typer.Option(64, min=1, metavar="N", help="Nodes; each is a process here."),
    nproc_per_node: int = typer.Option(8, min=1, max=64, metavar="N", help="Ranks of each."),
    fault: str = typer.Option("none", metavar="none|killed|silent|slow", help="What goes wrong."),
    json: bool = typer.Option(False, "--json", help="Print it as JSON."),
) -> None:
    """Run the launcher at scale on this machine, over agents that do nothing.

    The nodes meet at torch's store. Then a real supervisor joins, starts,
    watches and stops as many as are asked for. No script is run.
    """
    from distrun.api.simulate import FAULTS
    from distrun.api.simulate import simulate as run

    if fault not in FAULTS:
        raise UsageError(f"--fault {fault!r} is unknown", did_you_mean(fault, FAULTS))
    found = run(nodes, nproc_per_node, fault)
    if json:
        typer.echo(json_format.dumps(dataclasses.asdict(found)))
        return
    for line in _lines(found, FAULTS[fault]):
        typer.echo(line)


def _lines(found: Simulated, what: str) -> list[str]:
    rows = (
        ("torch's rendezvous took", found.met_s),
        ("all nodes joined after", found.joined_s),
        ("all ranks started after", found.started_s),
        ("the node was named after", found.named_s),
        ("all processes ended after", found.stopped_s),
    )
    ranks = found.nnodes * found.nproc_per_node
    head = f"{found.nnodes} nodes x {found.nproc_per_node} ranks = {ranks} ranks; {what}"
    took = [f"  {label:<26} {value:8.3f} s" for label, value in rows if value is not None]
    return [head, *took, f"  the run ended with {found.exit_code}: {found.summary}"]
