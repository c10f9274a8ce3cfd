"""Limits the size of rows: their buffers may take a third of the free memory."""

from __future__ import annotations

from pathlib import Path

import torch

from distrun.comm import World
from distrun.env import TorchrunEnv
from distrun.probe import cgroup

BUFFERS = 3
"""Input, output and expected result, each of the row's size."""
_SHARE = 3


def largest_nbytes(world: World, control: World) -> int:
    """Return the largest size whose buffers take a third of a rank's free memory."""
    free = _free_nbytes(world) // _SHARE // BUFFERS
    return int(control.all_reduce(torch.tensor(free), "min"))


def _free_nbytes(world: World) -> int:
    """Return the free memory of this rank: of its GPU, or its share of the host's."""
    if world.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(world.device)
        return int(free)
    return _host_nbytes() // TorchrunEnv.read().local_world_size


def _host_nbytes() -> int:
    """Return the free memory of the host or the container."""
    available = 1 << 40  # unknown on this system: no limit
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass  # not Linux
    left = cgroup.memory_left_nbytes()
    return available if left is None else min(available, left)
