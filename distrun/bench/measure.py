"""Times one row; the time of an iteration is that of its slowest rank."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from distrun.bench.operations import Operation, Wait
from distrun.bench.request import Mode
from distrun.comm import World

MIN_ITERATIONS = 5
QUEUED = 8
"""Iterations in flight at once in throughput mode; one sample is their mean."""


@dataclass(frozen=True)
class Times:
    """Seconds of each iteration, on its slowest rank."""

    seconds: list[float]
    """By CUDA events on a GPU, else by the host's clock."""
    host_s: list[float] | None
    """On a GPU, the same by the host's clock, including the launch; else None."""


def measure(
    operation: Operation, control: World, mode: Mode, iterations: int, warmup: int
) -> Times:
    """Time iterations.

    Args:
        operation: The row.
        control: The same ranks over gloo, for barriers and numbers that are not measured.
        mode: latency or throughput.
        iterations: Number of samples.
        warmup: Number of untimed iterations before them.
    """
    for _ in range(warmup):
        operation.start()()
    many = QUEUED if mode == "throughput" else 1
    on_gpu = operation.world.device.type == "cuda"
    mine = []
    for _ in range(iterations):
        control.barrier()
        mine.append(_by_events(operation, many) if on_gpu else _by_clock(operation, many))
    slowest = control.all_reduce(torch.tensor(mine, dtype=torch.float64), "max")
    # By definition the time of a pingpong is half of its round trip.
    slowest /= many * (2 if operation.name == "pingpong" else 1)
    by_events, by_host = slowest.T.tolist()
    return Times(by_events, by_host) if on_gpu else Times(by_host, None)


def _by_clock(operation: Operation, many: int) -> tuple[float, float]:
    began = time.perf_counter()
    waits: list[Wait] = [operation.start() for _ in range(many)]
    for wait in waits:
        wait()
    return 0.0, time.perf_counter() - began


def _by_events(operation: Operation, many: int) -> tuple[float, float]:
    begin, end = (torch.cuda.Event(True) for _ in range(2))
    torch.cuda.synchronize()
    began = time.perf_counter()
    begin.record()
    for _ in range(many):
        operation.start()()  # makes the current stream wait, not the host
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000, time.perf_counter() - began
