"""The program of the ranks of `distrun check --deep`. Rank 0 prints results as lines of JSON."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and sys.path and sys.path[0] == str(Path(__file__).parent):
    # Modules here have names of the standard library; distrun may not be installed.
    sys.path[:] = [*sys.path[1:], str(Path(__file__).parents[2])]

import functools
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from distrun import comm
from distrun.bench import pairs
from distrun.bench.program import tell
from distrun.bench.request import Request
from distrun.comm import World
from distrun.env import TorchrunEnv

_MATMUL_SIZE = {"cpu": 512, "cuda": 8192}
_COPY_NBYTES = 256 << 20
_BUDGET_S = 0.5
"""Repetitions of each measurement; the fastest counts, to exclude noise of the machine."""
_WARMUP = 3


def main() -> None:
    """Measure this rank's device and its communication with the others."""
    request = Request.from_json(sys.argv[1])
    torch.set_num_threads(1)
    with comm.init(timeout_s=request.timeout_s, check=False) as world:
        control = comm.attach(dist.new_group(backend="gloo"), check=False)
        node_rank = TorchrunEnv.read().node_rank
        mine = {"rank": world.rank, "device": _device_name(world.device), **_rates(world.device)}
        everyones = control.all_gather_object(mine)
        tell(world, {"bench": "ranks", "backend": world.backend, "ranks": everyones})
        tell(world, {"bench": "all_reduce", **_all_reduce(world, control)})
        if world.world_size > 1:
            tell(world, pairs.measure(request, world, control, node_rank))
        tell(world, {"bench": "end"})
        control.barrier()


def _device_name(device: torch.device) -> str:
    if device.type != "cuda":
        return platform.machine()
    found = torch.cuda.get_device_properties(device)
    return f"{found.name} GPU-{str(found.uuid)[:8]}" if hasattr(found, "uuid") else found.name


def _rates(device: torch.device) -> dict[str, float | None]:
    size = _MATMUL_SIZE[device.type]
    on_gpu = device.type == "cuda"
    dtype = torch.float16 if on_gpu else torch.float32
    x = torch.full((size, size), 0.5, dtype=dtype, device=device)
    out = torch.empty_like(x)
    matmul_s = _fastest_s(device, lambda: torch.mm(x, x, out=out))
    copy_s = None
    if on_gpu:
        here = torch.zeros(_COPY_NBYTES, dtype=torch.uint8, pin_memory=True)
        there = torch.empty(_COPY_NBYTES, dtype=torch.uint8, device=device)
        copy_s = _fastest_s(device, lambda: there.copy_(here, non_blocking=True))
    return {
        "matmul_flops": 2 * size**3 / matmul_s,
        "copy_bandwidth": _COPY_NBYTES / copy_s if copy_s else None,
    }


def _fastest_s(device: torch.device, work: Callable[[], object]) -> float:
    for _ in range(_WARMUP):
        _timed_s(device, work)
    times: list[float] = []
    while sum(times) < _BUDGET_S:
        times.append(_timed_s(device, work))
    return min(times)


def _timed_s(device: torch.device, work: Callable[[], object]) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _all_reduce(world: World, control: World) -> dict[str, Any]:
    """Return the median time of eight bytes, and whether the sum was right each time."""
    times, right = [], True
    expected = float(sum(range(1, world.world_size + 1)))
    for number in range(_WARMUP + 20):
        x = torch.full((2,), float(world.rank + 1), device=world.device)
        control.barrier()
        time_s = _timed_s(world.device, functools.partial(world.all_reduce, x, out=x))
        right = right and x.tolist() == [expected, expected]
        if number >= _WARMUP:
            times.append(time_s)
    slowest: list[float] = control.all_gather_object(statistics.median(times))
    return {"time_s": max(slowest), "right": all(control.all_gather_object(right))}


if __name__ == "__main__":
    main()
