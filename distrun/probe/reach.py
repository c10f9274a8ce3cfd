"""Tests connections between nodes: one listens, another connects."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from distrun.probe.host import port_problem
from distrun.probe.reading import Unread, begun, reason

_BACKLOG = 1024
"""The kernel completes this many connections without accept()."""


def listen(port: int = 0) -> socket.socket:
    """Listen on all interfaces, by IPv4 and IPv6 where there is IPv6.

    Args:
        port: 0 for a free one.

    Raises:
        Unread: The port cannot be used; the text is the end of a sentence about it.
    """
    try:
        return _listen(port)
    except OSError as error:
        raise Unread(port_problem(port) or f"cannot be used: {reason(error)}") from None


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(
            ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
        )
    except (OSError, ValueError) as error:  # ValueError: no dual stack on this system
        if isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise
    return socket.create_server(("", port), backlog=_BACKLOG)


def connecting(address: str, port: int, timeout_s: float) -> Callable[[], dict[str, str]]:
    """Start connecting to a port of another node.

    Returns:
        A function that waits for the result: `problem`, why the port cannot be reached, "" if
        it can, and the addresses of both ends.
    """
    connected = begun(timeout_s, "the other side", lambda: _connect(address, port, timeout_s))

    def result() -> dict[str, str]:
        try:
            source, target = connected()
        except Exception as error:  # whatever the resolver and the network come up with
            return {"problem": _problem(error), "from": "", "to": ""}
        return {"problem": "", "from": source, "to": target}

    return result


def _problem(error: Exception) -> str:
    if isinstance(error, (Unread, TimeoutError)):
        return "timed out"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, (socket.gaierror, UnicodeError)):  # UnicodeError: not a valid name
        return "the name does not resolve"
    if isinstance(error, OSError):
        return reason(error).lower()
    raise error


def _connect(address: str, port: int, timeout_s: float) -> tuple[str, str]:
    """Connect, by IPv4 first: IPv6 is often configured where it leads nowhere."""
    found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
    found.sort(key=lambda each: each[0] != socket.AF_INET)
    for number, (family, kind, protocol, _, where) in enumerate(found):
        with socket.socket(family, kind, protocol) as connection:
            connection.settimeout(timeout_s)
            try:
                connection.connect(where)
            except OSError:
                if number == len(found) - 1:
                    raise
                continue
            return connection.getsockname()[0], connection.getpeername()[0]
    raise socket.gaierror(f"{address} has no address")
