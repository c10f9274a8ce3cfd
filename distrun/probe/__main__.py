"""`python -m distrun.probe`: prints this machine's snapshot as one line of JSON."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from distrun.agent_start import become_agent
from distrun.probe import serve
from distrun.probe.node import DEADLINE_S, read_node
from distrun.probe.snapshot import Node
from distrun.wire import greet


def main() -> None:
    """Read this machine and print its snapshot."""
    parser = argparse.ArgumentParser(prog="python -m distrun.probe", description=__doc__)
    parser.add_argument("--name", default="this machine", help="name of the node")
    parser.add_argument("--runs-dir", type=Path, help="read the disk of this directory too")
    parser.add_argument("--no-gpus", action="store_true", help="do not use NVML")
    parser.add_argument("--quick", action="store_true", help="leave out links between GPUs")
    parser.add_argument("--addresses", action="store_true", help="a quick one with addresses")
    parser.add_argument(
        "--deadline", type=float, default=DEADLINE_S, help="timeout of NVML in seconds"
    )
    parser.add_argument("--serve", action="store_true", help="then answer requests on stdin")
    options = parser.parse_args()
    requests = serve.read_requests() if options.serve else None

    def read(quick: bool) -> Node:
        return read_node(
            options.name,
            runs_dir=options.runs_dir,
            want_gpus=not options.no_gpus,
            quick=quick,
            addresses=not quick or options.addresses,
            deadline_s=options.deadline,
        )

    if options.serve:
        sys.stdout.flush()  # what a sitecustomize printed
        greet(sys.stdout.fileno())
    serve.tell(dataclasses.asdict(read(options.quick)))
    if requests is not None and serve.answer(requests, read):
        become_agent()


if __name__ == "__main__":
    main()
