"""The GPUs of this machine as NVML tells them.

NVML can hang in the driver, so it is read by a child process with a deadline; pynvml is
imported nowhere else. Run as a program, this file is that child.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from dataclasses import dataclass

_DEADLINE_S = 5.0
_USED_NBYTES = 1 << 30


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    index: int
    name: str
    uuid: str
    used_nbytes: int
    pids: tuple[int, ...]
    """Processes that compute on it and that this process may see."""

    @property
    def busy(self) -> bool:
        """Somebody computes on it, or holds more than 1 GiB of its memory."""
        return bool(self.pids) or self.used_nbytes > _USED_NBYTES


@dataclass(frozen=True)
class Gpus:
    """All GPUs, or why there are none."""

    gpus: tuple[Gpu, ...]
    problem: str = ""


def read_gpus(deadline_s: float = _DEADLINE_S) -> Gpus:
    """Take the snapshot; a driver that fails or hangs is told in `problem`."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return Gpus((), "no NVIDIA driver is installed")
    try:
        child = subprocess.run(
            [sys.executable, __file__], capture_output=True, text=True, timeout=deadline_s
        )
    except subprocess.TimeoutExpired:
        return Gpus((), f"NVML did not answer within {deadline_s:g} s")
    try:
        data = json.loads(child.stdout)
        gpus = tuple(Gpu(**{**gpu, "pids": tuple(gpu["pids"])}) for gpu in data["gpus"])
        return Gpus(gpus, data["problem"])
    except (ValueError, TypeError, KeyError):  # it died, or a library printed beside it
        said = child.stderr.strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
        return Gpus((), f"the NVML reader failed: {said[0]}")


def _read_here() -> dict[str, object]:
    import pynvml

    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        return {"gpus": [], "problem": str(error)}
    gpus, lost = [], []
    for index in range(count):
        try:
            gpus.append(_gpu(index))
        except pynvml.NVMLError as error:  # a lost GPU does not hide the others
            lost.append(f"GPU {index}: {error}")
    return {"gpus": gpus, "problem": "; ".join(lost)}


def _gpu(index: int) -> dict[str, object]:
    import pynvml

    def text(value: bytes | str) -> str:
        return value.decode() if isinstance(value, bytes) else value

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    try:
        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except pynvml.NVMLError:  # not permitted, or not told by this device
        processes = []
    return {
        "index": index,
        "name": text(pynvml.nvmlDeviceGetName(handle)),
        "uuid": text(pynvml.nvmlDeviceGetUUID(handle)),
        "used_nbytes": pynvml.nvmlDeviceGetMemoryInfo(handle).used,
        "pids": [p.pid for p in processes],
    }


if __name__ == "__main__":
    print(json.dumps(_read_here()))  # the pipe to read_gpus, not a screen
