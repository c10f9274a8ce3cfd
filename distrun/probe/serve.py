"""The probe as a server on its pipes: it writes the snapshot, then answers requests.

The command at the other end of ssh or srun writes a line of JSON per request and reads a line per
answer:

    {"listen": true}                    {"port": 40123}
    {"listen": true, "port": 29500}     {"problem": "is in use by another process (…)"}
    {"connect": ["10.0.0.2", 40123]}    {"problem": "", "from": "10.0.0.1", "to": "10.0.0.2"};
                                        many run at once
    {"file": "train.py", "in": "/home"} {"sha256": "…"} or {"problem": "No such file or directory"}
    {"clock": true}                     {"now": 1767225600.25}
    {"read": true, "quick": true}       a new snapshot; quick leaves out links between GPUs
    {"agent": true}                     {"agent": true}, the last: see `agent_start.become_agent`

Answers come in the order of the requests. Ports stay open until standard input ends, and the
process ends with it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distrun.probe.reach import connecting, listen
from distrun.probe.reading import Unread
from distrun.probe.script import sha256_of
from distrun.probe.snapshot import Node

MOST_AT_ONCE = 128
"""The maximum number of connections at once, each with a thread."""
_CONNECT_TIMEOUT_S = 3.0
_END_LIMIT_S = 4.0
"""Time limit for requests that were read before the end of standard input."""

_Answer = Callable[[], dict[str, Any]]
"""A function that returns the answer; it may wait."""


def read_requests() -> queue.Queue[str]:
    """Start to read standard input; its end is put as "", and soon ends this process."""
    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    return requests


def _read(requests: queue.Queue[str]) -> None:
    for line in iter(sys.stdin.readline, ""):
        requests.put(line)
        if _is_last(line):
            return  # what follows is for the agent
    requests.put("")
    time.sleep(_END_LIMIT_S)
    os._exit(0)  # a request hangs, and the reader has gone


def answer(requests: queue.Queue[str], read: Callable[[bool], Node]) -> bool:
    """Answer every request until standard input ends.

    Args:
        requests: The lines of the requests.
        read: Takes a snapshot, a quick one or not.

    Returns:
        Whether this process is to become the agent.
    """
    listeners: list[socket.socket] = []
    begun: queue.Queue[_Answer | None] = queue.Queue(MOST_AT_ONCE)
    teller = threading.Thread(target=_tell_all, args=(begun,))
    teller.start()
    try:
        while (line := requests.get()) and not _is_last(line):
            begun.put(_begin(line, listeners, read))
    finally:
        begun.put(None)
        teller.join()
        for listener in listeners:
            listener.close()
    if line:
        tell({"agent": True})
    return bool(line)


def _is_last(line: str) -> bool:
    return line.startswith('{"agent"')


def _tell_all(begun: queue.Queue[_Answer | None]) -> None:
    while (answered := begun.get()) is not None:
        tell(answered())


def tell(answer: Any) -> None:
    """Write one line of JSON; end the process if the reader has gone."""
    try:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(1)


def _begin(line: str, listeners: list[socket.socket], read: Callable[[bool], Node]) -> _Answer:
    """Start a request; return a function that waits for its answer."""
    try:
        request = json.loads(line)
        if isinstance(request, dict) and "listen" in request:
            listeners.append(listen(_port(request.get("port", 0))))
            return _ready({"port": listeners[-1].getsockname()[1]})
        if isinstance(request, dict) and "connect" in request:
            address, port = request["connect"]
            return connecting(str(address), _port(port), _CONNECT_TIMEOUT_S)
        if isinstance(request, dict) and "file" in request:
            return _ready(_hash_of(Path(request["in"]) / request["file"]))
        if isinstance(request, dict) and "clock" in request:
            return _ready({"now": time.time()})
        if isinstance(request, dict) and "read" in request:
            return _ready(dataclasses.asdict(read(bool(request.get("quick")))))
    except (Unread, RuntimeError) as error:  # RuntimeError: no more threads can be started
        return _ready({"problem": str(error)})
    except (ValueError, TypeError):
        pass
    return _ready({"problem": f"not understood: {line.strip()[:200]}"})


def _hash_of(file: Path) -> dict[str, str]:
    try:
        return {"sha256": sha256_of(file)}
    except OSError as error:
        return {"problem": error.strerror or str(error)}


def _ready(answer: dict[str, Any]) -> _Answer:
    return lambda: answer


def _port(value: Any) -> int:
    port = int(value)
    if not 0 <= port < 1 << 16:  # the resolver would accept it, and use another port
        raise ValueError(port)
    return port
