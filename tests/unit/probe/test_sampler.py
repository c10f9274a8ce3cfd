"""Samples of this machine: rates between two looks, and GPUs without a driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distrun.probe.sampler import Rates, counters, memory


def test_a_rate_is_what_came_between_two_looks() -> None:
    looks = iter([{"net_sent": 100.0}, {"net_sent": 300.0}, {"net_sent": 20.0, "disk_read": 7.0}])
    times = iter([10.0, 14.0, 15.0])
    rates = Rates(lambda: next(looks), lambda: next(times))
    assert rates.since_last() == {"net_sent_nbytes_per_s": 50.0}
    reset = rates.since_last()  # the counter was reset, and a disk has come
    assert reset == {"net_sent_nbytes_per_s": 0.0, "disk_read_nbytes_per_s": 0.0}


def test_memory_and_counters_are_numbers_of_this_machine() -> None:
    assert 0 < memory()["ram_nbytes"] < 1 << 50
    assert {"net_received", "net_sent"} <= counters().keys()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells who lives")
def test_the_sampler_ends_when_nobody_reads() -> None:
    read, write = os.pipe()
    code = (
        "import sys; from distrun.probe.sampler import main; main(*map(int, sys.argv[1:3]), 0.05)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(os.getpid()), str(write)],
        pass_fds=(write,),
        cwd=Path(__file__).parents[3],
    )
    os.close(write)
    with os.fdopen(read) as lines:
        sample = json.loads(lines.readline())
    assert sample["system"]["ram_nbytes"] > 0 and sample["time"] > 1e9
    assert child.wait(20) == 0
