"""Tells the agent what a rank is in, from a thread of its own, also while the rank is stuck.

The agent asks with a line, `look` or `record`, on an abstract unix socket (unix(7)). The answer is
one line of JSON. While nobody asks, the thread waits in the kernel, without the GIL.
"""

from __future__ import annotations

import _socket
import _thread
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from struct import unpack
from typing import Any

from distrun import torch_private
from distrun.agent.library_call import KnownGroup, library_call
from distrun.agent.main_stack import StackCall, calls_of, handled_by

LOOK = b"look"
"""The request that asks whether the main thread moves too, which takes some milliseconds."""
_REQUEST_NBYTES = 4096
_END_LIMIT_S = 1.0
_MOST_GROUPS = 4096
_LAST_CALLS = 32
_SAMPLES, _SAMPLE_S = 3, 0.002
"""How often, and how soon, to see whether the main thread runs bytecode."""


class Recorder:
    """The thread that answers.

    Args:
        name: Name of the agent's socket.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._pid = os.getpid()
        self._main = threading.main_thread().ident
        self._socket: _socket.socket | None = None
        self._inode = 0
        self._stopping = False
        self._running = _thread.allocate_lock()

    def start(self) -> None:
        """Start the thread. It is not one of `threading`, which a script may list.

        Raises:
            RuntimeError: This user may have no more threads.
        """
        self._running.acquire()
        _thread.start_new_thread(self._serve, ())

    def stop(self) -> None:
        """End the thread, and wait for that; in a process that the script has forked, nothing."""
        if os.getpid() != self._pid:
            return
        self._stopping = True
        try:
            if (connection := self._own_socket()) is not None:
                connection.shutdown(_socket.SHUT_RDWR)  # what it waits in returns
        except OSError:
            pass  # the agent is gone, and so the thread ends
        self._running.acquire(timeout=_END_LIMIT_S)

    def _serve(self) -> None:
        try:
            # The script's signals are its own; the kernel may give this thread none of them.
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            _name_thread()
            self._connect()
            while not self._stopping and (request := self._next_request()):
                line = self._answer(LOOK in request.split())
                if (connection := self._own_socket()) is not None:
                    connection.sendall(line, _socket.MSG_NOSIGNAL)
        except BaseException:  # optional: whatever fails, the script must not notice
            pass
        finally:
            self._close()
            self._running.release()

    def _connect(self) -> None:
        # Of C: the script may have put another class in the place of `socket.socket`.
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        connection.settimeout(None)  # the script may have set a default
        connection.connect(f"\0{self._name}")
        peer = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
        _, uid, _ = unpack("3i", peer)
        if uid == os.getuid():
            self._inode = os.fstat(connection.fileno()).st_ino
            self._socket = connection

    def _next_request(self) -> bytes:
        """Wait for the agent; return b"" if it, or the socket, is gone."""
        if (connection := self._own_socket()) is None:
            return b""
        return connection.recv(_REQUEST_NBYTES)

    def _own_socket(self) -> _socket.socket | None:
        """Return the socket, unless the script has closed it: its number is another file's then."""
        if self._socket is None:
            return None
        try:
            is_own = os.fstat(self._socket.fileno()).st_ino == self._inode
        except OSError:
            is_own = False
        if is_own:
            return self._socket
        self._socket.detach()
        self._socket = None
        return None

    def _close(self) -> None:
        try:
            if (connection := self._own_socket()) is not None:
                connection.close()
        except OSError:
            pass

    def _answer(self, looks: bool) -> bytes:
        assert self._main is not None
        main, calls, groups = self._main, list[StackCall](), list[KnownGroup]()
        parts = {"time_ns": str(time.time_ns())}
        # One that fails leaves the others as they are: torch may change.
        with suppress(Exception):
            groups = _known_groups()
        with suppress(Exception):
            calls = calls_of(main)
        parts["groups"] = json.dumps([group._asdict() for group in groups])
        parts["frames"] = f"[{','.join(map(_frame, calls))}]"
        parts |= {"opcode": '""', "moves": "false", "call": "null", "trace": "{}"}
        with suppress(Exception):
            if handled := handled_by(main):
                parts["handled"] = json.dumps(handled)
        with suppress(Exception):
            parts["opcode"] = json.dumps(_opcode(calls))
            if looks:
                parts["moves"] = json.dumps(_moves(main, calls))
        with suppress(Exception):
            if call := library_call(main, calls, groups):
                parts["call"] = json.dumps(call._asdict())
        with suppress(Exception):
            parts["trace"] = torch_private.flight_record().decode(errors="replace")
        return _line(parts, "look" if looks else "record")


def last_calls() -> dict[str, Any]:
    """Return the groups of this rank and its last collectives, for a rank that fails."""
    trace = json.loads(torch_private.flight_record())
    trace["entries"] = trace.get("entries", [])[-_LAST_CALLS:]
    groups = [group._asdict() for group in _known_groups()]
    return {"time_ns": time.time_ns(), "groups": groups, "trace": trace}


def _name_thread() -> None:
    """Give this thread a name in `top -H`, py-spy and gdb (proc(5): /proc/PID/task/TID/comm)."""
    with suppress(OSError):
        comm = os.open(f"/proc/self/task/{_thread.get_native_id()}/comm", os.O_WRONLY)
        os.write(comm, b"distrun-records")
        os.close(comm)


def _line(parts: Mapping[str, str], asked: str) -> bytes:
    answer = ",".join(f'"{name}":{value}' for name, value in parts.items())
    text = f'{{"asked":"{asked}","answer":{{{answer}}}}}'
    return text.replace("\n", " ").encode() + b"\n"


def _known_groups() -> list[KnownGroup]:
    found = torch_private.known_groups()[:_MOST_GROUPS]
    limits: dict[str, float] = {}
    with suppress(Exception):
        limits = torch_private.group_timeouts()
    return [
        KnownGroup(n, d, sorted(r, key=r.__getitem__) if r else [], limits.get(n, 0.0))
        for n, d, r in found
    ]


def _moves(main: int, calls: Sequence[StackCall]) -> bool:
    """Return whether the main thread is in another call, or at another instruction, soon after."""
    for _ in range(_SAMPLES):
        time.sleep(_SAMPLE_S)
        if calls_of(main)[:2] != calls[:2]:
            return True
    return False


def _frame(call: StackCall) -> str:
    # As text, not as lists: each list brings the garbage collector nearer, which would call
    # destructors of the script's objects in this thread.
    file, function = json.dumps(call.code.co_filename), json.dumps(call.code.co_name)
    return f"[{file},{call.line or 0},{function}]"


def _opcode(calls: Sequence[StackCall]) -> str:
    """Return the name of the bytecode instruction of the innermost call, "" if it is not known."""
    opcodes: Any = sys.modules.get("opcode")  # torch has imported it
    if not calls or opcodes is None or calls[0].instruction < 0:
        return ""
    return str(opcodes.opname[calls[0].code.co_code[calls[0].instruction]])
