"""The end of gloo's process groups, at the end of a rank's interpreter.

A gloo group has threads in C++ that finish its collectives; to let go of the last objects of
one, such a thread needs the GIL. Two ends of torch's own come of it (pytorch's AsyncWork and
~ProcessGroupGloo): a group that is destroyed while a thread waits for the GIL waits for that
thread for ever; and a thread that asks for the GIL of an interpreter that finalizes is ended
in a destructor, which aborts the process. Both need a thread that is still busy: so wait,
with the GIL free, until none is.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

_THREAD_NAME = b"(pt_gloo_runloop)"
"""Of a thread that carries out collectives."""
_LIMIT_S = 2.0
_LOOK_S = 0.001


def close_gloo() -> None:
    """Wait for gloo's threads and destroy what groups the script has left.

    Only gloo: closing NCCL's communicators may wait for the peers.
    """
    if (torch := sys.modules.get("torch")) is None:
        return
    wait_until_idle()
    try:
        dist = torch.distributed
        if dist.is_available() and dist.is_initialized() and _is_gloo_alone(dist):
            dist.destroy_process_group()
    except Exception:  # a nicety: it must never turn the script's ending into another
        pass


def wait_until_idle() -> None:
    """Wait until no thread of gloo computes, or waits for the GIL (Linux alone)."""
    deadline = time.monotonic() + _LIMIT_S
    while any(_is_busy(stat) for stat in _threads()) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)


def _threads() -> Iterator[bytes]:
    """Yield /proc/self/task/TID/stat of each of gloo's threads."""
    try:
        tasks = list(Path("/proc/self/task").iterdir())
    except OSError:  # no Linux
        return
    for task in tasks:
        try:
            with open(task / "stat", "rb", buffering=0) as file:
                stat = file.read(4096)
        except OSError:  # it has just ended
            continue
        if _THREAD_NAME in stat:
            yield stat


def _is_busy(stat: bytes) -> bool:
    # A read of a file lets go of the GIL, which wakes a thread that waits for it: whoever
    # sleeps while the kernel writes these bytes waits for something else.
    return stat.rpartition(b")")[2].split()[0] not in b"SI"


def _is_gloo_alone(dist: ModuleType) -> bool:
    # "cpu:gloo", or "cpu:gloo,cuda:gloo" where gloo was asked for by name
    return all(part.endswith("gloo") for part in dist.get_backend_config().split(","))
