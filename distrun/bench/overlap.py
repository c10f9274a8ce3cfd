"""Measures how much a collective and a concurrent matmul slow each other down."""

from __future__ import annotations

import statistics
import threading
import time
from typing import Any

import torch

from distrun.bench import measure
from distrun.bench.operations import Operation
from distrun.bench.request import Request
from distrun.comm import World

_SIDE = {"cpu": 256, "cuda": 4096}
_ALONE_S = 0.2


class Matmul:
    """Multiplies two matrices repeatedly in its own thread, as backward() does."""

    def __init__(self, device: torch.device) -> None:
        side = _SIDE.get(device.type, 256)
        self._a = torch.ones(side, side, device=device)
        self._device = device
        self._stop = threading.Event()
        self._done = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        on_gpu = self._device.type == "cuda"
        stream = torch.cuda.Stream(self._device) if on_gpu else None
        while not self._stop.is_set():
            with torch.cuda.stream(stream):
                torch.mm(self._a, self._a)
            if stream is not None:
                stream.synchronize()
            self._done += 1

    def __enter__(self) -> Matmul:
        self._began_s = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.rate = self._done / (time.perf_counter() - self._began_s)
        """Matmuls per second."""


def beside_matmul(
    operation: Operation, request: Request, control: World, iterations: int, alone_p50_s: float
) -> dict[str, Any]:
    """Return the slowdown of a row and of a matmul that run together: the mean over ranks.

    Args:
        operation: The row.
        request: The mode of timing.
        control: The ranks over gloo.
        iterations: Number of timed iterations.
        alone_p50_s: The row's time without a matmul.
    """
    control.barrier()
    with Matmul(operation.world.device) as alone:
        time.sleep(_ALONE_S)
    with Matmul(operation.world.device) as beside:
        times = measure.measure(operation, control, request.mode, iterations, request.warmup)
    p50 = statistics.median(times.seconds)
    mine = torch.tensor(1 - beside.rate / alone.rate)
    return {
        "p50_s": p50,
        "collective_loss": 1 - alone_p50_s / p50,
        "matmul_loss": control.all_reduce(mine, "mean").item(),
    }
