"""What launch needs to know of this machine: cores, addresses, ports."""

from __future__ import annotations

import math
import socket
import sys
from dataclasses import dataclass

from distrun.probe.host_limits import usable_cores

LOOPBACK = "127.0.0.1"
LOOPBACK_INTERFACE = "lo" if sys.platform.startswith("linux") else "lo0"


@dataclass(frozen=True)
class Host:
    """This machine as a process of ours may use it."""

    cores: int
    """Cores that the affinity mask and the cgroup's quota leave."""


def read_host() -> Host:
    """Take the snapshot."""
    return Host(cores=max(1, math.ceil(usable_cores())))


def free_port(address: str = LOOPBACK) -> int:
    """Return a TCP port that is free at this moment."""
    with socket.socket() as listener:
        listener.bind((address, 0))
        port: int = listener.getsockname()[1]
        return port


def port_problem(port: int) -> str:
    """Return why a port cannot be had, as the end of a sentence; "" if it can.

    On all addresses, where the store of a printed torchrun line listens: who has it on one of
    them has it.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as TCPStore does
        try:
            listener.bind(("", port))
        except PermissionError:
            return "is for root alone"
        except OSError:
            holder = _listener(port)
            return "is in use by another process" + (f" ({holder})" if holder else "")
    return ""


def _listener(port: int) -> str:
    try:
        import psutil
    except ImportError:  # another machine's own Python: the port is taken all the same
        return ""
    try:
        for c in psutil.net_connections("tcp"):
            if c.laddr and c.laddr.port == port and c.status == psutil.CONN_LISTEN and c.pid:
                return f"{psutil.Process(c.pid).name()}, pid {c.pid}"
    except psutil.Error:
        pass  # another user's process: nobody may say more
    return ""


def resolve(name: str) -> str | None:
    """Return the IPv4 address of a host name, or None."""
    try:
        return socket.gethostbyname(name)
    except (OSError, UnicodeError):  # not known; or no name at all, as the idna codec says
        return None
