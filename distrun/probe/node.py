"""One node, read into a snapshot: the driver by a child process, the host meanwhile."""

from __future__ import annotations

import platform
import socket
import sys
from datetime import datetime, timezone
from pathlib import Path

from distrun import __version__
from distrun.probe.nvml import not_read, read_gpus
from distrun.probe.snapshot import Host, Node, Software
from distrun.probe.torch_facts import read_torch

DEADLINE_S = 10.0


def read_node(
    name: str = "this machine",
    *,
    runs_dir: Path | None = None,
    want_gpus: bool = True,
    quick: bool = False,
    deadline_s: float = DEADLINE_S,
) -> Node:
    """Take the snapshot of this machine; never raises.

    Args:
        name: What the caller calls it.
        runs_dir: Where runs are recorded; None leaves it unread.
        want_gpus: Ask NVML too.
        quick: Leave out what takes long: pairs of GPUs, NVLinks, fabric.
        deadline_s: Time that the driver has to answer.
    """
    nvml = (
        read_gpus(deadline_s, quick=quick)
        if want_gpus
        else not_read("GPUs were not asked for", "not_asked")
    )
    torch = read_torch()
    return Node(
        name=name,
        taken_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        nvml=nvml,
        host=Host(hostname=socket.gethostname(), kernel=platform.release()),
        software=Software(
            __version__, ".".join(map(str, sys.version_info[:3])), torch.version, torch.cuda
        ),
    )
