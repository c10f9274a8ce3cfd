"""Waits until the memory of GPUs is free of processes that have ended: `…/gpu_memory.py LIMIT_S`.

The driver gives it back some time after the end of a process. It prints a line of JSON when it
begins to wait, and one if the limit is over.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[2]))  # it may have been sent for this run

from distrun.probe.node import read_node
from distrun.probe.snapshot import Gpu

_HELD_NBYTES = 1 << 30
"""What the driver itself uses is less (nvidia-smi of idle GPUs shows up to 0.7 GiB)."""
_POLL_S = 0.5
_NVML_S = 10.0


def held_nbytes(gpu: Gpu) -> int:
    """Return the memory of a GPU that no process that NVML lists has; 0 if that is unknown."""
    processes = (*(gpu.processes or ()), *(gpu.graphics_processes or ()))
    used = [process.used_nbytes for process in processes]
    if gpu.memory_used_nbytes is None or gpu.processes is None or None in used:
        return 0
    held = gpu.memory_used_nbytes - sum(nbytes or 0 for nbytes in used)
    return held if held > _HELD_NBYTES else 0


def main(limit_s: float) -> None:
    """Wait, and say so."""
    begun_at: float | None = None
    while held := _held():
        late = begun_at is not None and time.monotonic() - begun_at >= limit_s
        if late or begun_at is None:
            print(json.dumps({"held": held, "late": late}), flush=True)
        begun_at = time.monotonic() if begun_at is None else begun_at
        if late:
            return
        time.sleep(_POLL_S)


def _held() -> dict[int, int]:
    nvml = read_node(quick=True, want_gpus=True, deadline_s=_NVML_S).nvml
    return {gpu.index: nbytes for gpu in nvml.present if (nbytes := held_nbytes(gpu))}


if __name__ == "__main__":
    main(float(sys.argv[1]))
