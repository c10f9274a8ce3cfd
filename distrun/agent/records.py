"""The agent's socket to the recorders of its ranks: it asks, and keeps each rank's last answer.

See agent/recorder.py for the other end. A rank may send anything, or nothing, ever: nothing here
waits, and one that sends what was not asked for is cut off.
"""

from __future__ import annotations

import json
import os
import secrets
import selectors
import socket
import struct
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from distrun.env import RECORD_SIZES, RECORDS
from distrun.processes import LINUX

LOOK, RECORD = "look", "record"
"""What a rank is asked for: a look tells whether its main thread moves, too."""
_KEPT = "200"
"""How many collectives torch is to keep; one takes some 500 bytes in an answer."""
_LIMIT_NBYTES = 8 << 20
_READ_NBYTES = 1 << 18
_BACKLOG = 1024  # all ranks may connect at once
_KNOWN_WITHIN_S = 10.0
"""A rank may connect before the agent has read that it was forked."""
_PEER = struct.Struct("3i")


class Known(NamedTuple):
    """The last answer of a rank."""

    answer: dict[str, Any] | None = None
    """None: it has never answered."""
    age_s: float = 0.0
    """0 if it has answered the last request, or was not asked."""


@dataclass
class _Recorder:
    """The connection to one."""

    connection: socket.socket
    connected_at: float
    line: bytearray = field(default_factory=bytearray)
    awaited: set[str] = field(default_factory=set)
    """Requests without an answer."""
    may_send: int = 0
    """How many lines it may send: one a request, or fewer, if it takes some together."""
    is_rank: bool = False
    """It was among the live ranks."""


class Records:
    """Listens for the recorders of this node's ranks.

    Args:
        selector: The agent's; its loop calls what is registered.
        pids: Returns the pids of the live ranks.
    """

    def __init__(
        self, selector: selectors.BaseSelector, pids: Callable[[], Collection[int]]
    ) -> None:
        self._selector, self._pids = selector, pids
        self._recorders: dict[int, _Recorder] = {}
        self._answers: dict[int, tuple[dict[str, Any], float]] = {}
        self._name = f"distrun-{secrets.token_hex(8)}"
        self._listener: socket.socket | None = None
        if LINUX:
            self._listen()

    def _listen(self) -> None:
        try:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError:  # no descriptor is left
            return
        try:
            listener.bind(f"\0{self._name}")
            listener.listen(_BACKLOG)
        except OSError:  # a sandbox without such sockets
            listener.close()
            return
        listener.setblocking(False)
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ, self._on_connection)

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return an environment of ranks with what has them record; a user's own size stays."""
        size = {} if any(name in environ for name in RECORD_SIZES) else {RECORD_SIZES[0]: _KEPT}
        return {**environ, **size, RECORDS: self._name}

    def ask(self, what: str) -> None:
        """Ask every rank that can be asked; one that has not answered yet is not asked twice."""
        self._drop_strangers()
        live = self._pids()
        for pid, recorder in [*self._recorders.items()]:
            if pid in live and what not in recorder.awaited:
                try:
                    recorder.connection.send(f"{what}\n".encode())
                    recorder.awaited.add(what)
                    recorder.may_send += 1
                except BlockingIOError:
                    pass  # it has not read the earlier ones
                except OSError:
                    self._drop(pid)

    def awaits(self, what: str) -> bool:
        """Return whether an answer has not come of a live rank that was asked."""
        live = self._pids()
        return any(what in r.awaited for pid, r in self._recorders.items() if pid in live)

    def has(self, pid: int) -> bool:
        """Return whether a rank has a recorder."""
        return pid in self._recorders

    def frames_since(self, pid: int, at: float) -> list[Any]:
        """Return the calls that a rank's main thread was in, if it has answered since a time."""
        answer, answered_at = self._answers.get(pid, ({}, 0.0))
        frames = answer.get("frames") if answered_at >= at else None
        return frames if isinstance(frames, list) and all(map(_is_frame, frames)) else []

    def known(self, pid: int) -> Known:
        """Return the last answer of a rank."""
        if (recorder := self._recorders.get(pid)) is None:
            return Known()
        answer, at = self._answers.get(pid, (None, recorder.connected_at))
        return Known(answer, round(time.monotonic() - at, 3) if recorder.awaited else 0.0)

    def _on_connection(self) -> None:
        assert self._listener
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it is gone again, or there are no more descriptors
            return
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        pid, uid, _ = _PEER.unpack(peer)
        if uid != os.getuid():
            connection.close()
            return
        self._drop(pid)
        self._drop_strangers()
        connection.setblocking(False)
        self._recorders[pid] = _Recorder(connection, time.monotonic())
        self._selector.register(connection, selectors.EVENT_READ, partial(self._on_answer, pid))

    def _on_answer(self, pid: int) -> None:
        if (recorder := self._recorders.get(pid)) is None:
            return  # it was dropped by what the loop did before
        try:
            data = recorder.connection.recv(_READ_NBYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, rest = data.split(b"\n")
        if not data or recorder.may_send < len(lines) + bool(rest):
            self._drop(pid)
            return
        for part in lines:
            line = bytes(recorder.line) + part
            recorder.line.clear()
            if not self._take(pid, recorder, line):
                self._drop(pid)
                return
        recorder.line += rest
        if len(recorder.line) > _LIMIT_NBYTES:
            self._drop(pid)

    def _take(self, pid: int, recorder: _Recorder, line: bytes) -> bool:
        """Note an answer; return whether it is one."""
        try:
            told = json.loads(line)
            asked, answer = told["asked"], told["answer"]
            if asked not in (LOOK, RECORD) or not isinstance(answer, dict):
                return False
            json.dumps(answer)  # the supervisor is sent it
        except (ValueError, LookupError, TypeError, RecursionError):
            return False
        recorder.may_send -= 1
        recorder.awaited -= {asked, RECORD}  # a look has the record too
        self._answers[pid] = answer, time.monotonic()
        return True

    def _drop_strangers(self) -> None:
        """Drop those that are no rank any more, or have had time to become one."""
        live, now = self._pids(), time.monotonic()
        for pid, recorder in [*self._recorders.items()]:
            if pid in live:
                recorder.is_rank = True
            elif recorder.is_rank or now - recorder.connected_at > _KNOWN_WITHIN_S:
                self._drop(pid)

    def _drop(self, pid: int) -> None:
        self._answers.pop(pid, None)  # old, and no sign that its GIL is held
        if (recorder := self._recorders.pop(pid, None)) is not None:
            self._selector.unregister(recorder.connection)
            recorder.connection.close()

    def close(self) -> None:
        """Close every connection, and the socket."""
        for pid in [*self._recorders]:
            self._drop(pid)
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()


def _is_frame(told: object) -> bool:
    """Return whether it is a file, a line and a function."""
    kinds = [str, int, str]
    return isinstance(told, list) and [type(part) for part in told] == kinds
