"""What a sample of a row is, by a clock that the test moves: iterations take a second each."""

from __future__ import annotations

import time

import pytest
import torch

from distrun.bench import measure
from distrun.bench.operations import Operation, Wait, Wanted
from distrun.bench.request import Mode
from distrun.comm import World
from distrun.testing import run_ranks


class Seconds(Operation):
    """An op whose iterations take a second of a clock of its own, and count themselves."""

    def make(self) -> None:
        self.now_s, self.started, self.waited = 0.0, 0, 0

    def start(self) -> Wait:
        self.started += 1

        def wait() -> None:
            self.waited += 1
            self.now_s += 1.0

        return wait


class AllReduce(Seconds):
    name = "all_reduce"


class PingPong(Seconds):
    name = "pingpong"


@pytest.mark.parametrize(
    ("kind", "mode", "seconds", "each"),
    [
        (AllReduce, "latency", 1.0, 1),
        (AllReduce, "throughput", 1.0, measure.QUEUED),  # the mean of those under way
        (PingPong, "latency", 0.5, 1),  # half of a round trip
        (PingPong, "throughput", 0.5, measure.QUEUED),
    ],
)
def test_a_sample_is_the_time_of_one_iteration(
    kind: type[Seconds], mode: Mode, seconds: float, each: int
) -> None:
    def fn(world: World) -> tuple[measure.Times, int, int]:
        op = kind(world, Wanted(64, torch.float32, "sum", 0, in_place=False))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "perf_counter", lambda: op.now_s)
            times = measure.measure(op, world, mode, iterations=3, warmup=2)
        return times, op.started, op.waited

    ((times, started, waited),) = run_ranks(fn, 1)
    assert times.seconds == [seconds] * 3
    assert times.host_s is None, "by the host's clock there is one time"
    assert started == waited == 2 + 3 * each
