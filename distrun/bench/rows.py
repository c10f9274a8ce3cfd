"""Measures the rows of a request, one after another, within its budget."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch

from distrun import bandwidth
from distrun.bench import fit, overlap
from distrun.bench.correctness import wrong_elements
from distrun.bench.measure import MIN_ITERATIONS, QUEUED, Times, measure
from distrun.bench.operations import OPERATIONS, Operation, Wanted, elements
from distrun.bench.request import Place, Request
from distrun.bench.statistics import Stats, stats_of
from distrun.comm import World
from distrun.env import TorchrunEnv

Line = dict[str, Any]


class Rows:
    """The rows of a request.

    Args:
        request: What to measure.
        world: The ranks over the measured backend.
        control: The same ranks over gloo.
        largest: The largest size of a row in bytes.
    """

    def __init__(self, request: Request, world: World, control: World, largest: int) -> None:
        self._request = request
        self._world = world
        self._control = control
        self._largest = largest
        self._deadline = time.monotonic() + request.budget_s
        self.plan = [
            (op, size, place)
            for op in request.ops
            if op in OPERATIONS  # pairs and stragglers have no rows
            for size, place in self._sizes(op)
        ]

    def _sizes(self, op: str) -> list[tuple[int, Place]]:
        """Return the sizes of an op, without repetition after rounding, and in or out of place."""
        if op == "barrier":
            return [(0, "out")]
        dtype, n = self._dtype, self._world.world_size
        rounded = dict.fromkeys(
            elements(op, size, dtype, n) * dtype.itemsize for size in self._request.sizes
        )
        return [(size, place) for size in rounded for place in _places(op, self._request.places)]

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self._request.dtype)
        return dtype

    def measure(self) -> Iterator[Line]:
        """Yield a line for each row and, after the last row of an op, one for its model."""
        fastest: dict[int, float] = {}
        for number, (op, nbytes, place) in enumerate(self.plan):
            row = self._row(op, nbytes, place, rows_left=len(self.plan) - number)
            yield row
            if row["bench"] == "row" and nbytes:
                fastest[row["nbytes"]] = min(row["min_s"], fastest.get(row["nbytes"], row["min_s"]))
            if number + 1 == len(self.plan) or self.plan[number + 1][0] != op:
                found = fit.fit(list(fastest), list(fastest.values()))
                if found is not None:
                    yield {"bench": "fit", "op": op, **asdict(found)}
                fastest = {}

    def _row(self, op: str, nbytes: int, place: Place, rows_left: int) -> Line:
        request = self._request
        if nbytes > self._largest:
            limit = f"{self._largest / 2**20:.0f} MiB, a third of the free memory with all buffers"
            return {"bench": "skipped", "op": op, "nbytes": nbytes, "why": f"above {limit}"}
        wanted = Wanted(nbytes, self._dtype, request.redop, request.root, place == "in")
        operation = OPERATIONS[op](self._world, wanted)
        wrong = None
        if request.check and op != "barrier":
            wrong = [asdict(each) for each in wrong_elements(operation, self._control)]
        operation.reset()
        times, stats, repeated = self._times(operation, rows_left)
        beside = None
        if request.overlap:
            beside = overlap.beside_matmul(
                operation, request, self._control, stats.iterations, stats.p50_s
            )
        return {
            "bench": "row",
            "op": op,
            "place": place,
            "nbytes": operation.nbytes,
            "count": operation.count,
            "dtype": request.dtype,
            "redop": request.redop if operation.reduces else None,
            "root": request.root if operation.rooted else None,
            **asdict(stats),
            "noisy": stats.is_noisy,
            "repeated": repeated,
            **_bandwidths(op, operation.nbytes, stats, self._world.world_size),
            "wrong": wrong,
            "overlap": beside,
            "host_p50_s": None if times.host_s is None else statistics.median(times.host_s),
            "times_s": [float(f"{t:.4g}") for t in times.seconds],
        }

    def _times(self, operation: Operation, rows_left: int) -> tuple[Times, Stats, bool]:
        """Return the times of a row; of a noisy row the less noisy of two measurements."""
        request, control = self._request, self._control
        iterations = self._affordable(operation, rows_left)
        runs = []
        for _ in range(2):
            times = measure(operation, control, request.mode, iterations, request.warmup)
            runs.append((stats_of(times.seconds), times))
            if not runs[-1][0].is_noisy:
                break
        stats, times = min(runs, key=lambda run: run[0].cv)
        return times, stats, len(runs) > 1

    def _affordable(self, operation: Operation, rows_left: int) -> int:
        """Return the number of iterations that fit into this row's share of the remaining time."""
        request = self._request
        (one,) = measure(operation, self._control, request.mode, 1, warmup=1).seconds
        one *= QUEUED if request.mode == "throughput" else 1
        one *= 2 if request.overlap else 1
        share_s = max(0.0, self._deadline - time.monotonic()) / rows_left
        allowed = int(share_s / 2 / max(one, 1e-9)) - request.warmup  # it may be measured twice
        ours = max(MIN_ITERATIONS, min(request.iterations, allowed))
        return int(self._control.all_reduce(torch.tensor(min(ours, request.iterations)), "min"))


def _places(op: str, asked: tuple[Place, ...]) -> tuple[Place, ...]:
    """Return in and out of place; ops that need two buffers have only out of place."""
    if op in ("all_to_all", "gather", "scatter", "sendrecv", "pingpong"):
        return ("out",)
    return asked


def _bandwidths(op: str, nbytes: int, stats: Stats, world_size: int) -> Line:
    """Return bandwidths in bytes per second, each from one time, never a mean of bandwidths."""
    if op == "barrier":
        return {"algbw": None, "busbw": None, "best_busbw": None, "wire": None}
    nnodes = TorchrunEnv.read().nnodes
    collective = op not in ("sendrecv", "pingpong")  # theirs is already that of one link
    busbw = bandwidth.busbw(op, nbytes, stats.p50_s, world_size)
    spans = nnodes > 1 and collective
    return {
        "algbw": bandwidth.algbw(nbytes, stats.p50_s),
        "busbw": busbw,
        "best_busbw": bandwidth.busbw(op, nbytes, stats.min_s, world_size),
        "wire": bandwidth.wire(busbw, world_size, nnodes) if spans else None,
    }
