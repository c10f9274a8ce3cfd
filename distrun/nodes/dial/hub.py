"""The head's end of the nodes that dial in: a program that joins them with those who call them.

It reads `{"ended": CODE}` on standard input, and writes what happens to standard output: a node
has joined, was refused, was told to end. At the end of its input it ends, and all connections
with it. A relay asks on a unix socket for a program on a node, and gets its two streams.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import shutil
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from distrun.listen import listen_at
from distrun.nodes.dial.connection import DialConnection, Refused
from distrun.silence import BEAT_S, LOST_AFTER_S
from distrun.wire import Message, encoded, first_message

_OPEN_LIMIT_S = 20.0
_CLOSE_LIMIT_S, _LOOK_S = 5.0, 0.02
_UNPROVEN_AT_ONCE = 128
"""Connections at once that have not proved the key yet; more of them are closed."""


class Hub:
    """The nodes of one run, and the calls for them.

    Args:
        key: The key of the run.
        nnodes: Number of nodes; the head itself is node 0.
    """

    def __init__(self, key: bytes, nnodes: int) -> None:
        self._key, self._nnodes = key, nnodes
        self._nodes: dict[int, DialConnection] = {}
        self._callers: dict[int, list[socket.socket]] = {}
        self._waiting: dict[str, queue.SimpleQueue[tuple[str, socket.socket]]] = {}
        self._seen: set[int] = set()
        self._lock = threading.RLock()
        self._unproven = threading.Semaphore(_UNPROVEN_AT_ONCE)

    def accept_nodes(self, listener: socket.socket) -> None:
        """Take connections of nodes, and of strangers, for ever."""
        while True:
            with suppress(OSError):  # it was gone before it was taken
                own, _ = listener.accept()
                if self._unproven.acquire(blocking=False):
                    _thread(self._greet, own)
                else:
                    own.close()

    def accept_callers(self, listener: socket.socket) -> None:
        """Take calls for nodes for ever."""
        while True:
            with suppress(OSError):
                own, _ = listener.accept()
                _thread(self._connect_caller, own)

    def end(self, code: int) -> None:
        """Tell all nodes the exit code of the run, and wait until they have closed.

        A socket that is closed with unread heartbeats in it would take back what was sent last.
        """
        for connection in self._everyone():
            with suppress(OSError):
                connection.send({"ended": code})
        deadline = time.monotonic() + _CLOSE_LIMIT_S
        while self._everyone() and time.monotonic() < deadline:
            time.sleep(_LOOK_S)

    def beat(self) -> None:
        """Say to all nodes that the head is alive, for ever."""
        while True:
            time.sleep(BEAT_S)
            for connection in self._everyone():
                with suppress(OSError):
                    connection.send({})

    def _everyone(self) -> list[DialConnection]:
        with self._lock:
            return list(self._nodes.values())

    def _greet(self, own: socket.socket) -> None:
        address = ""
        try:
            address = own.getpeername()[0]
            connection = DialConnection(own, self._key, dials=False)
            connection.limit(_OPEN_LIMIT_S)
            first = connection.receive() or {}
        except Refused as refused:
            _say({"stranger": address, "why": str(refused)})
            return
        except (EOFError, OSError):
            return
        finally:
            self._unproven.release()
        if isinstance(token := first.get("channel"), str):
            self._hand_over(token, str(first.get("stream")), connection)
        elif why := self._join(first, connection):
            with suppress(OSError):
                connection.send({"refused": why})
            connection.close()
        else:
            self._serve(int(first["node"]), str(first.get("name", ""))[:256], connection)

    def _hand_over(self, token: str, stream: str, connection: DialConnection) -> None:
        with self._lock:
            waiting = self._waiting.get(token)
        if waiting is None or stream not in ("talk", "words"):
            connection.close()
            return
        connection.limit(0)
        waiting.put((stream, connection.into_stream()))

    def _join(self, first: Message, connection: DialConnection) -> str:
        """Take a node in; return why not, "" if it is."""
        number, nnodes = first.get("node"), first.get("nnodes")
        if not isinstance(number, int) or not 0 < number < self._nnodes:
            return f"there is no node {number!r} among {self._nnodes}; the head is node 0"
        if nnodes != self._nnodes:
            return f"node {number} was started as one of {nnodes} nodes, node 0 of {self._nnodes}"
        with self._lock:
            if number in self._seen:
                twice = "two have its number, or it was started again"
                return f"node {number} has been in this run already: {twice}"
            self._seen.add(number)
        return ""

    def _serve(self, number: int, name: str, connection: DialConnection) -> None:
        connection.limit(LOST_AFTER_S)
        with self._lock, suppress(OSError):  # then it has no message either
            connection.send({"welcome": number})  # before any other message
            self._nodes[number] = connection
            _say({"joined": number, "name": name, "address": connection.peer})
        while (message := connection.receive()) is not None:
            if message:
                _say({**message, "node": number})
        with self._lock:
            self._nodes.pop(number, None)
            callers = self._callers.pop(number, [])
        connection.close()
        for caller in callers:  # each ends, and so the node's agent counts as gone
            with suppress(OSError):
                caller.shutdown(socket.SHUT_RDWR)
        _say({"left": number})

    def _connect_caller(self, caller: socket.socket) -> None:
        received = first_message(caller.fileno())
        call: dict[str, Any] = received[0] if received else {}
        number, token = call.get("node"), secrets.token_hex(8)
        waiting: queue.SimpleQueue[tuple[str, socket.socket]] = queue.SimpleQueue()
        with self._lock:
            connection = self._nodes.get(number) if isinstance(number, int) else None
            self._waiting[token] = waiting
            if connection is not None and isinstance(number, int):
                self._callers.setdefault(number, []).append(caller)
        try:
            if connection is None:
                has = "has left" if number in self._seen else "has not dialed in"
                raise OSError(f"node {number} {has}")
            connection.send({"open": token, "argv": call["argv"]})
            streams = dict(waiting.get(timeout=_OPEN_LIMIT_S) for _ in range(2))
            fds = [streams["talk"].fileno(), streams["words"].fileno()]
            socket.send_fds(caller, [b"\n"], fds)
            for stream in streams.values():
                stream.close()
            caller.recv(1)  # until the relay ends, or the node leaves
        except (OSError, KeyError, queue.Empty) as error:
            why = str(error) or f"no answer within {_OPEN_LIMIT_S:g} s"
            with suppress(OSError):
                caller.sendall(encoded({"problem": why}))
        finally:
            with self._lock:
                del self._waiting[token]
                if isinstance(number, int) and caller in self._callers.get(number, ()):
                    self._callers[number].remove(caller)
            caller.close()


def _thread(function: Any, *arguments: Any) -> None:
    threading.Thread(target=function, args=arguments, daemon=True).start()


_said = threading.Lock()


def _say(message: Message) -> None:
    with _said, suppress(OSError):
        os.write(1, encoded(message))


def main() -> None:
    """Serve until standard input ends, and remove the directory of the socket.

    The first line of it has `address`, `port`, `path`, `key` and `nnodes`.
    """
    received = first_message(0)
    if received is None:
        return
    try:
        _serve(*received)
    finally:  # the launcher may have been killed
        shutil.rmtree(Path(received[0]["path"]).parent, ignore_errors=True)


def _serve(order: Message, rest: bytes) -> None:
    try:
        listener = listen_at(order["address"], order["port"])
    except OSError as error:
        _say({"failed": error.strerror or str(error)})
        sys.exit(1)
    callers = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    callers.bind(order["path"])
    callers.listen()
    hub = Hub(order["key"].encode(), order["nnodes"])
    for function, argument in ((hub.accept_nodes, listener), (hub.accept_callers, callers)):
        _thread(function, argument)
    _thread(hub.beat)
    _say({"listening": listener.getsockname()[1]})
    with open(0, closefd=False) as commands:
        for line in [*rest.decode().splitlines(), *iter(commands.readline, "")]:
            if isinstance(code := json.loads(line).get("ended"), int):
                hub.end(code)


if __name__ == "__main__":
    main()
