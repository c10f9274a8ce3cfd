"""Samples of all GPUs by NVML, read by a child: a call may hang in the driver for ever.

Unlike the child of `probe.nvml`, which reads once and ends, this one stays and is asked by a byte.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import time
from typing import Any

from distrun.probe.nvml_call import Failure, NvmlReading
from distrun.processes import die_with_parent, send

_DEADLINE_S = 5.0


class GpuSamples:
    """The child; without NVML there is none."""

    def __init__(self) -> None:
        self.problem = ""
        """Why there are no samples any more."""
        self._pid = 0
        try:
            ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            return
        ask_read, self._ask = os.pipe()
        self._answers, answer_write = os.pipe()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._ask)
            os.close(self._answers)
            _serve(parent, ask_read, answer_write)
        os.close(ask_read)
        os.close(answer_write)

    def sample(self) -> dict[str, float]:
        """Return `gpu0_utilisation_percent` and so on; {} if there are no GPUs, or NVML hangs."""
        if not self._pid:
            return {}
        try:
            os.write(self._ask, b"?")
        except OSError:
            return self._give_up("NVML ended")
        return self._answer()

    def _answer(self) -> dict[str, float]:
        deadline, data = time.monotonic() + _DEADLINE_S, b""
        while not data.endswith(b"\n"):
            left_s = max(0.0, deadline - time.monotonic())
            if not select.select([self._answers], [], [], left_s)[0]:
                return self._give_up(f"NVML did not answer within {_DEADLINE_S:g} s")
            if not (more := os.read(self._answers, 1 << 16)):
                return self._give_up("NVML ended")
            data += more
        values: dict[str, float] = json.loads(data)
        return values

    def _give_up(self, why: str) -> dict[str, float]:
        send(self._pid, signal.SIGKILL)
        self._pid, self.problem = 0, f"{why}; the GPUs are not sampled any more"
        return {}


def _serve(parent: int, asked: int, answers: int) -> None:
    """Answer until nobody asks; never returns."""
    code = 1
    try:
        die_with_parent(parent)
        while os.read(asked, 1):
            os.write(answers, json.dumps(_read_all()).encode() + b"\n")
        code = 0
    except Exception:  # the parent sees that the pipe has ended
        pass
    finally:
        os._exit(code)


def _read_all() -> dict[str, float]:
    driver = NvmlReading("the driver", lambda _: None)
    found: dict[str, float] = {}
    try:
        driver.call("nvmlInit")  # again: a driver that was reloaded is found
        count = driver.call("nvmlDeviceGetCount")
    except Failure:
        return found
    for index in range(count):
        gpu = NvmlReading(f"GPU {index}", lambda _: None)
        try:
            handle = gpu.call("nvmlDeviceGetHandleByIndex", index)
        except Failure:
            continue  # lost, or of another container
        _read(gpu, handle)
        found |= {
            f"gpu{index}_{name}": value for name, value in gpu.values.items() if name != "lost"
        }
    return found


def _read(gpu: NvmlReading, handle: Any) -> None:
    gpu.ask(
        "nvmlDeviceGetUtilizationRates", handle, utilisation_percent=lambda found: float(found.gpu)
    )
    gpu.ask("nvmlDeviceGetMemoryInfo", handle, memory_nbytes=lambda found: float(found.used))
    gpu.ask("nvmlDeviceGetPowerUsage", handle, power_w=lambda milliwatt: milliwatt / 1000)
    gpu.ask("nvmlDeviceGetTemperature", handle, 0, temperature_c=float)
