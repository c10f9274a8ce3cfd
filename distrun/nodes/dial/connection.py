"""A connection between two nodes of a run, each of which proves that it knows the run's key.

The proof is that of `multiprocessing.connection` (HMAC of a random challenge, both ways). What
follows is neither encrypted nor signed.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from contextlib import suppress
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Any

from distrun.wire import Message

_PROOF_LIMIT_S = 10.0
_MESSAGE_NBYTES = 1 << 20
_NO_LIMIT_S = 0.0


class Refused(Exception):
    """The other side does not know the key, or is not a node of a run."""


class DialConnection:
    """Messages over a TCP connection whose two sides know the key.

    Args:
        own: The connected socket; it is closed with this object.
        key: The key of the run.
        dials: Whether this side has connected; it proves first.

    Raises:
        Refused: The other side does not know the key, or does not answer as a node does.
        OSError: The connection has ended.
    """

    def __init__(self, own: socket.socket, key: bytes, *, dials: bool) -> None:
        self._socket = own
        own.settimeout(None)  # a limit would make it non-blocking
        self._sending = threading.Lock()
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection: Connection[Any, Any] = Connection(socket.dup(own.fileno()))
        self.limit(_PROOF_LIMIT_S)
        try:
            self._prove(key, dials)
        except BaseException:  # on any error the descriptors must be closed
            self.close()
            raise
        self.limit(_NO_LIMIT_S)

    def _prove(self, key: bytes, dials: bool) -> None:
        from multiprocessing import AuthenticationError

        steps = [answer_challenge, deliver_challenge]
        try:
            for step in steps if dials else reversed(steps):
                step(self._connection, key)
        except AuthenticationError as error:
            raise Refused("it has another key") from error
        except BlockingIOError as error:
            raise Refused(f"it said nothing for {_PROOF_LIMIT_S:g} s") from error
        except (EOFError, ConnectionError):
            raise
        except Exception as error:  # whatever a stranger's bytes make of the protocol
            raise Refused("it is no node of a run") from error

    def limit(self, seconds: float) -> None:
        """Let reads and writes fail with BlockingIOError after a time; 0: never (socket(7))."""
        value = struct.pack("ll", int(seconds), 0)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._socket.setsockopt(socket.SOL_SOCKET, option, value)

    def send(self, message: Message) -> None:
        """Send a message.

        Raises:
            OSError: The connection has ended.
        """
        with self._sending:
            self._connection.send_bytes(json.dumps(message).encode())

    def receive(self) -> Message | None:
        """Wait for a message; None at the end of the connection."""
        try:
            message = json.loads(self._connection.recv_bytes(_MESSAGE_NBYTES))
        except (EOFError, OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    def poll(self, seconds: float) -> bool:
        """Wait until there is something to receive, the end included; return whether there is."""
        return self._connection.poll(seconds)

    @property
    def peer(self) -> str:
        """The address of the other side."""
        address: str = self._socket.getpeername()[0]
        return address

    def into_stream(self) -> socket.socket:
        """Return the socket as a stream of bytes; this object is closed."""
        self._connection.close()
        return self._socket

    def close(self) -> None:
        """Close it, also for a thread that waits in it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._connection.close()
        self._socket.close()


def dial(address: str, port: int, key: bytes, limit_s: float) -> DialConnection:
    """Connect to the head, and prove the key to one another.

    Raises:
        Refused: What listens there does not know the key.
        OSError: Nothing listens there.
    """
    return DialConnection(socket.create_connection((address, port), limit_s), key, dials=True)
