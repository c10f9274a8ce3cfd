"""Times one row: every iteration as long as its slowest rank takes."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from distrun.bench.operations import Operation, Wait
from distrun.bench.request import Mode
from distrun.comm import World

MIN_ITERATIONS = 5
QUEUED = 8
"""Iterations under way at once in throughput mode; one sample is their mean."""

Timer = Callable[[], float]


def times_s(
    operation: Operation, control: World, mode: Mode, iterations: int, warmup: int
) -> list[float]:
    """Return the time of each iteration, in seconds: the maximum over the ranks.

    Args:
        operation: The row.
        control: The same ranks, over gloo: its barriers and its numbers are not measured.
        mode: latency or throughput.
        iterations: How many samples.
        warmup: How many iterations go before, untimed.
    """
    for _ in range(warmup):
        operation.start()()
    timer = _timer(operation, mode)
    mine = []
    for _ in range(iterations):
        control.barrier()
        mine.append(timer())
    slowest = control.all_reduce(torch.tensor(mine, dtype=torch.float64), "max")
    # What the definition calls the time of a pingpong is half of its round trip.
    share = 0.5 if operation.name == "pingpong" else 1.0
    return [share * t for t in slowest.tolist()]


def _timer(operation: Operation, mode: Mode) -> Timer:
    on_gpu = operation.world.device.type == "cuda"
    many = QUEUED if mode == "throughput" else 1
    if on_gpu:
        return lambda: _by_events(operation, many) / many
    return lambda: _by_clock(operation, many) / many


def _by_clock(operation: Operation, many: int) -> float:
    began = time.perf_counter()
    waits: list[Wait] = [operation.start() for _ in range(many)]
    for wait in waits:
        wait()
    return time.perf_counter() - began


def _by_events(operation: Operation, many: int) -> float:
    begin, end = (torch.cuda.Event(True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    begin.record()
    for _ in range(many):
        operation.start()()  # has the current stream wait, not the host
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000
