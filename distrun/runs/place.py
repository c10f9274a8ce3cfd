"""Identifies the supervisor process of a run; a pid is valid on one machine only.

A run directory may be on a disk that many machines share, and its record may have been written by
anyone. So a signal is sent only to a process that is verified to be the supervisor.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from distrun.identity import boot_id
from distrun.processes import LINUX, send, start_time
from distrun.signal_masks import survives

PROGRAM = "supervise/__main__.py"
"""End of the supervisor's program in its command line; the next argument is its run."""
_MAX_PID = 2**31 - 1
_STARTING_S = 5.0
"""A newly started supervisor installs its handlers within this time."""
_POLL_S = 0.02


@dataclass(frozen=True)
class Place:
    """One user in one PID namespace of one boot of one machine."""

    host: str = ""
    boot_id: str = ""
    pid_namespace: str = ""
    uid: int = -1

    @property
    def is_here(self) -> bool:
        """Whether its pids are valid in this process."""
        return self == here()

    def is_before_boot_of_this_host(self, at: float) -> bool:
        """Return whether this is the same machine, booted again since a time."""
        now = here()
        return (
            LINUX
            and self.host == now.host
            and self.boot_id != now.boot_id
            and at < time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        )


def here() -> Place:
    """Return the place of this process."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""  # missing on some systems and in some sandboxes
    return Place(socket.gethostname(), boot_id(), namespace, os.getuid())


@dataclass(frozen=True)
class SupervisorProcess:
    """A supervisor in this place, as its record names it."""

    pid: int
    start: str
    """From `processes.start_time`."""
    run_id: str

    @property
    def is_alive(self) -> bool:
        """Whether that process, not another one with its pid, runs and supervises this run."""
        return (
            1 < self.pid <= _MAX_PID
            and self.start != ""
            and start_time(self.pid) == self.start
            and _supervises(_command_line(self.pid), self.run_id)
        )

    def handles(self, signum: int) -> bool:
        """Wait until its handler for a signal is installed; return False if there is none."""
        deadline = time.monotonic() + _STARTING_S
        while self.is_alive and LINUX:
            if survives(self.pid, signum):
                return True
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
        return False

    def signal(self, signum: int) -> bool:
        """Send it a signal when its handler is installed; return False if it is not alive."""
        self.handles(signum)
        if not self.is_alive:
            return False
        if not hasattr(os, "pidfd_open"):
            return send(self.pid, signum)
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        except OSError:  # the kernel has no pidfds, or a sandbox forbids them
            return send(self.pid, signum)
        try:
            if not self.is_alive:  # from now on the pid cannot be reused
                return False
            signal.pidfd_send_signal(fd, signum)
        except (ProcessLookupError, PermissionError):
            return False
        finally:
            os.close(fd)
        return True


def _command_line(pid: int) -> list[str]:
    if LINUX:
        try:
            return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")
        except OSError:
            return []
    words = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()


def _supervises(words: list[str], run_id: str) -> bool:
    return any(
        word.endswith(PROGRAM) and following == run_id for word, following in pairwise(words)
    )
