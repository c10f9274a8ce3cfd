"""Reads one node into a snapshot: the driver in a child process, the host meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from distrun.probe.host_snapshot import read_host_snapshot
from distrun.probe.nvml import NvmlReader, not_read
from distrun.probe.snapshot import Host, Node, Nvml, Software
from distrun.probe.software import read_software

DEADLINE_S = 10.0
THIS_MACHINE = "this machine"
"""Its name, if it was requested by none."""


def read_node(
    name: str = THIS_MACHINE,
    *,
    runs_dir: Path | None = None,
    want_gpus: bool = True,
    quick: bool = False,
    addresses: bool | None = None,
    deadline_s: float = DEADLINE_S,
) -> Node:
    """Take the snapshot of this machine; never raises.

    Args:
        name: The name of the node.
        runs_dir: Where runs are recorded; None: not read.
        want_gpus: Read NVML too.
        quick: Leave out what neither a launch nor a live screen needs: NVLinks, the fabric, pairs
            of GPUs, fields that seldom change, the kernel log.
        addresses: Read the addresses of network interfaces; None: unless it is quick.
        deadline_s: Time limit of the driver.
    """
    taken_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
    wanted = not quick if addresses is None else addresses

    def host() -> Host:
        return read_host_snapshot(runs_dir=runs_dir, quick=quick, addresses=wanted)

    try:
        nvml, found, software = _read(host, want_gpus, quick, deadline_s)
    except Exception as error:  # a failed probe is reported as a fact of the node
        problem = f"the probe failed: {error!r}"
        return Node(name, taken_at, not_read(problem, "failed"), Host(), Software(), (), problem)
    return Node(name, taken_at, nvml, found, software)


def _read(
    host: Callable[[], Host], want_gpus: bool, quick: bool, deadline_s: float
) -> tuple[Nvml, Host, Software]:
    if not want_gpus:
        return not_read("GPUs were not asked for", "not_asked"), host(), read_software()
    with NvmlReader(deadline_s, quick=quick) as reader:
        found, software = host(), read_software()
        return reader.result(), found, software
