"""The program of the ranks of `distrun bench-comm`. Rank 0 prints results as lines of JSON."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and sys.path and sys.path[0] == str(Path(__file__).parent):
    # Modules here have names of the standard library; distrun itself may not be installed.
    sys.path[:] = [*sys.path[1:], str(Path(__file__).parents[2])]

import json
import os
import platform
import socket
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn

from distrun import __version__, comm
from distrun.bench import pairs, stragglers
from distrun.bench.memory import largest_nbytes
from distrun.bench.request import Request
from distrun.bench.rows import Rows
from distrun.comm import World
from distrun.env import TorchrunEnv

_TOLD = ("NCCL_", "GLOO_", "TORCH_NCCL_")
"""Only these environment variables are reported."""


def main() -> None:
    """Measure the request in the only argument."""
    request = Request.from_json(sys.argv[1])
    torch.set_num_threads(1)  # gloo's threads need the cores
    with comm.init(request.backend, timeout_s=request.timeout_s, check=False) as world:
        control = comm.attach(dist.new_group(backend="gloo"), check=False)
        rows = Rows(request, world, control, largest_nbytes(world, control))
        tell(world, {"bench": "begin", "rows": len(rows.plan), **surroundings(world, control)})
        for line in rows.measure():
            tell(world, line)
        if "pairs" in request.ops:
            tell(world, pairs.measure(request, world, control, TorchrunEnv.read().node_rank))
        if "stragglers" in request.ops:
            tell(world, stragglers.measure(request, world, control))
        tell(world, {"bench": "end"})
        control.barrier()


def tell(world: World, line: dict[str, Any]) -> None:
    """Print a line, on rank 0."""
    if world.rank == 0:
        print(json.dumps(line), flush=True)


def surroundings(world: World, control: World) -> dict[str, Any]:
    """Return the description of hardware and software; every rank must call this."""
    env = TorchrunEnv.read()
    on_gpu = world.device.type == "cuda"
    mine = {
        "rank": world.rank,
        "node": env.node_rank,
        "host": socket.gethostname(),
        "device": torch.cuda.get_device_name(world.device) if on_gpu else platform.machine(),
        "pid": os.getpid(),
        "local_rank": world.local_rank,
        "pci_id": _pci_id(world.device) if on_gpu else "",
    }
    return {
        "backend": world.backend,
        "world_size": world.world_size,
        "nnodes": env.nnodes,
        "ranks": control.all_gather_object(mine),
        "versions": {
            "distrun": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            **({"nccl": _nccl_version()} if on_gpu else {}),
        },
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith(_TOLD)},
    }


def _pci_id(device: torch.device) -> str:
    found = torch.cuda.get_device_properties(device)
    numbers = [getattr(found, f"pci_{part}_id", 0) for part in ("domain", "bus", "device")]
    return "{:04x}:{:02x}:{:02x}".format(*numbers)


def _nccl_version() -> str:
    return ".".join(map(str, torch.cuda.nccl.version()))


if __name__ == "__main__":
    main()
