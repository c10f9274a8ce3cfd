"""What a launch reads of this machine: addresses and ports."""

from __future__ import annotations

import socket
import sys

LOOPBACK = "127.0.0.1"
LOOPBACK_INTERFACE = "lo" if sys.platform.startswith("linux") else "lo0"


def port_problem(port: int) -> str:
    """Return why a port cannot be used, as the end of a sentence; "" if it can.

    Checks all addresses, because the store of a printed torchrun line listens on all of them.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as TCPStore does
        try:
            listener.bind(("", port))
        except PermissionError:
            return "can be used by root only"
        except OSError:
            holder = _listener(port)
            return "is in use by another process" + (f" ({holder})" if holder else "")
    return ""


def _listener(port: int) -> str:
    try:
        import psutil
    except ImportError:  # another machine's Python may not have it: the port is in use anyway
        return ""
    try:
        for c in psutil.net_connections("tcp"):
            if c.laddr and c.laddr.port == port and c.status == psutil.CONN_LISTEN and c.pid:
                return f"{psutil.Process(c.pid).name()}, pid {c.pid}"
    except psutil.Error:
        pass  # another user's process: no more can be read
    return ""


def resolve(name: str) -> str | None:
    """Return the IPv4 address of a host name, or None."""
    try:
        return socket.gethostbyname(name)
    except (OSError, UnicodeError):  # unknown, or not a valid name (idna codec)
        return None
