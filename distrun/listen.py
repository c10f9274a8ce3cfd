"""Addresses and ports of a machine: a listening socket at one address alone, a free port."""

from __future__ import annotations

import socket

_BACKLOG = 1024
"""Backlog: all ranks and agents may connect at once."""


def listen_at(address: str, port: int) -> socket.socket:
    """Listen at an address, IPv4 or IPv6.

    Args:
        address: An address or a name of this machine; of a name, the first address is used.
        port: 0 for a free one.

    Raises:
        OSError: The port is in use, or the address does not belong to this machine.
    """
    family, _, _, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A port that was closed a moment ago can be used again, as TCPStore does.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(_BACKLOG)
    except BaseException:  # on any error the descriptor must be closed
        listener.close()
        raise
    return listener


def free_port(address: str = "") -> int:
    """Return a TCP port that is free now at an IPv4 address; "": at all of them."""
    with socket.socket() as listener:
        listener.bind((address, 0))
        port: int = listener.getsockname()[1]
        return port


def is_loopback(address: str) -> bool:
    """Return whether an address means the machine itself; a name is none."""
    import ipaddress  # an agent imports this file, and its ranks would find it loaded

    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)  # Python 3.10 to 3.12 do not look at it
    return (mapped or found).is_loopback
