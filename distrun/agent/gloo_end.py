"""Closes gloo's process groups at the end of a rank's interpreter.

A gloo group has threads in C++ that finish its collectives. To free the last objects of a
collective, such a thread needs the GIL. So two faults can happen (in pytorch's AsyncWork and
~ProcessGroupGloo). If a group is destroyed while a thread waits for the GIL, it waits for that
thread for ever. If a thread asks for the GIL while the interpreter finalizes, the thread is
ended in a destructor, which aborts the process. Both need a thread with an unfinished
collective, perhaps because a peer is late: so wait, without the GIL, until there is none.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

_THREAD_NAME = "pt_gloo_runloop"
"""The name of a thread that carries out collectives."""
_LIMIT_S = 10.0
"""How long to wait for late peers."""
_LOOK_S = 0.001
_FUTEX = ("202", "98", "240", "422")
"""The number of futex(2) on x86_64, aarch64, 32-bit ARM and i386, and with 64-bit times."""

_FUTEX_WAIT_BITSET, _COMMAND = 9, 0x7F


def close_gloo() -> None:
    """Wait for gloo's threads and destroy the groups that the script has left.

    Only gloo: to close NCCL's communicators may wait for the peers.
    """
    if (torch := sys.modules.get("torch")) is None:
        return
    if not wait_until_idle():
        return  # to destroy a group would be to wait for its peers
    try:
        dist = torch.distributed
        if dist.is_available() and dist.is_initialized() and _is_gloo_alone(dist):
            dist.destroy_process_group()
    except Exception:  # optional: it must never change how the script ends
        pass


def wait_until_idle() -> bool:
    """Wait until no thread of gloo is busy (Linux only); return False if one still is."""
    deadline = time.monotonic() + _LIMIT_S
    while any(_is_busy(syscall) for syscall in _threads()):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_S)
    return True


def _threads() -> Iterator[list[str]]:
    """Yield /proc/self/task/TID/syscall of each of gloo's threads, in words."""
    try:
        tasks = list(Path("/proc/self/task").iterdir())
    except OSError:  # no Linux
        return
    for task in tasks:
        try:
            if (task / "comm").read_text().rstrip("\n") == _THREAD_NAME:
                yield (task / "syscall").read_text().split()
        except OSError:  # it has just ended
            continue


def _is_busy(syscall: list[str]) -> bool:
    """Return whether a thread does anything but wait for its next collective.

    It waits for that on a condition (FUTEX_WAIT_BITSET) without a limit. Waits for a peer
    and for the GIL have a limit, and a wait for a lock is another operation (FUTEX_WAIT).
    """
    if syscall[0] not in _FUTEX:
        return True
    operation, limit = int(syscall[2], 16), int(syscall[4], 16)
    return operation & _COMMAND != _FUTEX_WAIT_BITSET or limit != 0


def _is_gloo_alone(dist: ModuleType) -> bool:
    # "cpu:gloo", or "cpu:gloo,cuda:gloo" where gloo was asked for by name
    return all(part.endswith("gloo") for part in dist.get_backend_config().split(","))
