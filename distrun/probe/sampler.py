"""The process that samples this machine once in some seconds; agent/samples.py starts it.

It writes a line of JSON a sample to a pipe, and ends when the reader or its parent is gone:

    {"time": 1767225600.25, "system": {"cpu_percent": 12.5, "gpu0_power_w": 311.0, …}}
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from distrun.probe.gpu_samples import GpuSamples
from distrun.processes import die_with_parent

_FIRST_S = 1.0
"""Rates need an interval: the first sample comes so long after the start."""
Counters = dict[str, float]


def main(parent_pid: int, fd: int, every_s: float) -> None:
    """Sample until nobody reads."""
    die_with_parent(parent_pid)
    os.nice(5)
    try:
        import psutil  # noqa: F401 - machines that were sent distrun may lack it
    except ImportError as error:
        _write(fd, {"problem": str(error)})
        return
    rates = Rates(counters, time.monotonic)
    usage = CpuUsage()
    gpus = GpuSamples()
    due = time.monotonic() + min(_FIRST_S, every_s)
    while os.getppid() == parent_pid:
        time.sleep(max(0.0, due - time.monotonic()))
        due = max(due + every_s, time.monotonic())
        values = {**usage.percent(), **memory(), **rates.since_last(), **gpus.sample()}
        if gpus.problem:
            _write(fd, {"problem": gpus.problem})
            gpus.problem = ""
        _write(fd, {"time": round(time.time(), 3), "system": values})


def _write(fd: int, message: object) -> None:
    try:
        os.write(fd, json.dumps(message).encode() + b"\n")
    except OSError:
        sys.exit(0)  # the agent has ended


class CpuUsage:
    """CPU time that was used since the last look, as a percentage of all cores."""

    def __init__(self) -> None:
        import psutil

        psutil.cpu_percent()

    def percent(self) -> dict[str, float]:
        """Return it."""
        import psutil

        return {"cpu_percent": psutil.cpu_percent()}


def memory() -> dict[str, float]:
    """Return the memory in use: what is not available to a new process without swapping."""
    import psutil

    found = psutil.virtual_memory()
    return {"ram_nbytes": float(found.total - found.available)}


def counters() -> Counters:
    """Return what was read, written, received and sent since the machine was started, in bytes."""
    import psutil

    disk, network = psutil.disk_io_counters(), psutil.net_io_counters(pernic=True)
    found: Counters = {}
    if disk is not None:  # a container may have none
        found["disk_read"], found["disk_write"] = float(disk.read_bytes), float(disk.write_bytes)
    outside = [counts for name, counts in network.items() if _is_outside(name)]
    found["net_received"] = float(sum(counts.bytes_recv for counts in outside))
    found["net_sent"] = float(sum(counts.bytes_sent for counts in outside))
    return found


def _is_outside(interface: str) -> bool:
    """Return whether bytes of an interface are counted: a bond or a bridge repeats its members'."""
    if interface.startswith("lo"):
        return False
    found = Path("/sys/class/net", interface)
    return not any((found / name).is_dir() for name in ("bonding", "bridge"))


class Rates:
    """Bytes per second between two looks at counters.

    Args:
        look: Returns the counters.
        clock: Returns the time in seconds.
    """

    def __init__(self, look: Callable[[], Counters], clock: Callable[[], float]) -> None:
        self._look, self._clock = look, clock
        self._before, self._at = look(), clock()

    def since_last(self) -> dict[str, float]:
        """Return the rates since the last call; a counter that was reset counts as 0."""
        now, at = self._look(), self._clock()
        passed_s = max(at - self._at, 1e-3)
        found = {
            f"{name}_nbytes_per_s": round(
                max(0.0, value - self._before.get(name, value)) / passed_s
            )
            for name, value in now.items()
        }
        self._before, self._at = now, at
        return {name: float(value) for name, value in found.items()}
