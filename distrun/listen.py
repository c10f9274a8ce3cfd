"""A listening socket at one address of this machine, and at no other."""

from __future__ import annotations

import socket

_BACKLOG = 1024
"""Each rank and each agent connects at the same time."""


def listen_at(address: str, port: int) -> socket.socket:
    """Listen at an address, IPv4 or IPv6.

    Args:
        address: An address or a name of this machine; of a name's addresses the first is taken.
        port: 0 for a free one.

    Raises:
        OSError: The port is taken, or the address is none of this machine.
    """
    family, _, _, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A port that was served a moment ago can be served again, as TCPStore has it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(_BACKLOG)
    except BaseException:  # whatever it is, the descriptor must not stay open
        listener.close()
        raise
    return listener
