"""Whether nodes can connect to one another: one listens, another connects."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from distrun.probe.host import port_problem
from distrun.probe.reading import Unread, begun, reason

_BACKLOG = 1024
"""The kernel completes that many connections by itself: nobody has to accept them."""


def listen(port: int = 0) -> socket.socket:
    """Listen on all interfaces, by IPv4 and IPv6 where there is IPv6.

    Args:
        port: 0 for a free one.

    Raises:
        Unread: The port cannot be had; the text ends a sentence that names it.
    """
    try:
        return _listen(port)
    except OSError as error:
        raise Unread(port_problem(port) or f"cannot be had: {reason(error)}") from None


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(
            ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
        )
    except (OSError, ValueError) as error:  # ValueError: Python knows of no dual stack here
        if isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise
    return socket.create_server(("", port), backlog=_BACKLOG)


def connecting(address: str, port: int, timeout_s: float) -> Callable[[], str]:
    """Begin to connect to a port of another node.

    Returns:
        What waits for the end, and returns why the port cannot be reached; "" if it can.
    """
    connected = begun(timeout_s, "the other side", lambda: _connect(address, port, timeout_s))
    return lambda: _problem(connected)


def _problem(connected: Callable[[], None]) -> str:
    try:
        connected()
    except (Unread, TimeoutError):
        return "timed out"
    except ConnectionRefusedError:
        return "refused"
    except (socket.gaierror, UnicodeError):  # UnicodeError: it can be no name at all
        return "the name does not resolve"
    except OSError as error:
        return reason(error).lower()
    return ""


def _connect(address: str, port: int, timeout_s: float) -> None:
    socket.create_connection((address, port), timeout_s).close()
