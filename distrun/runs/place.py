"""Which process the supervisor of a run is: a pid means something in one place only.

A run directory may be on a disk that many machines share, and its record may have been
written by anybody: nothing is signalled that is not this very supervisor.
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

from distrun.processes import LINUX, send, start_time
from distrun.signal_masks import survives

PROGRAM = "supervise/__main__.py"
"""How the program of a supervisor ends; the next word of its command line is its run."""
_MAX_PID = 2**31 - 1
_STARTING_S = 5.0
"""In so long a supervisor that has just been started has its handlers."""
_POLL_S = 0.02


@dataclass(frozen=True)
class Place:
    """One user, in one PID namespace, of one boot of one machine."""

    host: str = ""
    boot_id: str = ""
    pid_namespace: str = ""
    uid: int = -1

    @property
    def is_here(self) -> bool:
        """Its pids are ours."""
        return self == here()

    def is_before_boot_of_this_host(self, at: float) -> bool:
        """Say whether this machine has been booted since a time in that place."""
        now = here()
        return (
            LINUX
            and self.host == now.host
            and self.boot_id != now.boot_id
            and at < time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        )


def here() -> Place:
    """Return the place of this process."""
    boot_id = namespace = ""
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        pass  # not every system, and not every sandbox, has them
    return Place(socket.gethostname(), boot_id, namespace, os.getuid())


@dataclass(frozen=True)
class SupervisorProcess:
    """A supervisor of this place, as a record names it."""

    pid: int
    start: str
    """From `processes.start_time`."""
    run_id: str

    @property
    def is_alive(self) -> bool:
        """That process, and no other under its number, lives and supervises this run."""
        return (
            1 < self.pid <= _MAX_PID
            and self.start != ""
            and start_time(self.pid) == self.start
            and _supervises(_command_line(self.pid), self.run_id)
        )

    def signal(self, signum: int) -> bool:
        """Send it a signal, as soon as that does not end it unheard; False if it is not alive."""
        deadline = time.monotonic() + _STARTING_S
        while self.is_alive and LINUX and not survives(self.pid, signum):
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
        if not self.is_alive:
            return False
        if not hasattr(os, "pidfd_open"):
            return send(self.pid, signum)
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        except OSError:  # the kernel has none, or a sandbox forbids it
            return send(self.pid, signum)
        try:
            if not self.is_alive:  # now the number cannot pass to another process
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
