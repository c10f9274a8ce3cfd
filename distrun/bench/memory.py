"""How large a row may be: a third of the memory that is free holds its buffers."""

from __future__ import annotations

from pathlib import Path

import torch

from distrun.comm import World
from distrun.env import TorchrunEnv

BUFFERS = 3
"""Input, output and what is expected, each of the row's size."""
_SHARE = 3
_CGROUP = Path("/sys/fs/cgroup")


def largest_nbytes(world: World, control: World) -> int:
    """Return the largest size for which a rank's buffers take a third of what is free."""
    free = _free_nbytes(world) // _SHARE // BUFFERS
    return int(control.all_reduce(torch.tensor(free), "min"))


def _free_nbytes(world: World) -> int:
    """Return the free memory of this rank: of its GPU, or its part of the host's."""
    if world.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(world.device)
        return int(free)
    return _host_nbytes() // TorchrunEnv.read().local_world_size


def _host_nbytes() -> int:
    """Return what the host, or the container that this is, has left."""
    available = 1 << 40  # where the system does not say: no limit but the sizes asked for
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
        limit = (_CGROUP / "memory.max").read_text().strip()
        if limit != "max":
            used = int((_CGROUP / "memory.current").read_text())
            available = min(available, max(0, int(limit) - used))
    except (OSError, ValueError):
        pass  # not Linux, or no cgroup v2
    return available
