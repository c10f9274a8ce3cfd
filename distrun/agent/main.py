"""The agent: one process a node. It imports torch once and forks the forkserver.

A warm agent runs inside `boot/sitecustomize.py`, so that a rank, forked from it, returns
into an interpreter that is about to run the user's script. A cold one is this file, run
as a program; not with -m, so that no module in the user's directory can come first.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and sys.path and sys.path[0] == str(Path(__file__).parent):
    del sys.path[0]
    _root = Path(__file__).parents[2]
    # Before another distrun if this one was sent for this run (agent/unpack.py).
    sys.path.insert(0 if (_root / "bootstrap.lock").exists() else len(sys.path), str(_root))

import importlib
import json
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Mapping
from typing import Any

from distrun.agent.channel import Channel
from distrun.agent.forks import Forks
from distrun.agent.forkserver import QUIET, Forkserver
from distrun.agent.node import Node
from distrun.listen import free_port
from distrun.processes import adopt_orphans, raise_descriptor_limit, wake_when_parent_ends
from distrun.signals import HEARD
from distrun.streams import Streams

PRELOADED = ("torch", "torch.distributed")
"""What is imported once a node, before any rank is forked.

Not torch.distributed.nn: DDP imports it after the process group is made, and its default
arguments then keep the group alive. Imported before, they keep nothing, and the group ends
with the DDP object, whose destructor waits for a thread that waits for the GIL.
"""


def run_agent(order: Mapping[str, Any], *, warm: bool) -> None:
    """Become the agent and the forkserver, which end in here; returns in warm ranks alone.

    Args:
        order: The descriptors `commands_fd` and `events_fd`, the `streams` of the ranks, and
            `received`, the beginning of the commands, if something else has read it.
        warm: Import torch now, and fork the ranks from this process.
    """
    try:
        _run(order, warm=warm)
    except BaseException:  # no error of ours may reach the user's script
        traceback.print_exc()
        os._exit(1)


def _run(order: Mapping[str, Any], *, warm: bool) -> None:
    streams = Streams.from_json(order["streams"])
    for fd in (order["commands_fd"], order["events_fd"], *streams.open_fds):
        os.set_inheritable(fd, False)
    received = order.get("received", "").encode()
    channel = Channel(order["commands_fd"], order["events_fd"], received)
    channel.event("node_stage", stage="starting", pid=os.getpid())
    channel.event("node_stage", stage="importing torch")
    if warm:
        _import(channel, *PRELOADED)
        warm = _one_thread(channel)
    ours, theirs = socket.socketpair()
    if (forkserver := _fork(channel)) == 0:
        ours.close()
        channel.close()
        for fd in streams.open_fds:
            os.close(fd)
        wake_when_parent_ends()  # then it has to end its ranks
        Forkserver(theirs, warm=warm).serve()
        return
    theirs.close()
    for signum in QUIET:
        # The supervisor decides, and sends a command; of some it is told.
        signal.signal(signum, (lambda *_: None) if signum in HEARD else signal.SIG_IGN)
    adopt_orphans()
    raise_descriptor_limit()  # of this process, not of the ranks: each needs some
    # In this thread: `site` is still being imported here, and another would wait for it.
    _import(channel, "distrun.agent.engine")
    channel.event("node_joined", monotonic=time.monotonic(), free_port=free_port())
    node = Node(channel, Forks(ours, forkserver), streams)
    signal.set_wakeup_fd(node.wake_fd, warn_on_full_buffer=False)
    node.run()
    os._exit(0)  # torch's engine may still sit in its thread, and has nothing to save


def _fork(channel: Channel) -> int:
    try:
        return os.fork()
    except OSError as error:  # this user may have no more processes
        channel.event("start_failed", what="no process can be started", why=error.strerror)
        raise


def _import(channel: Channel, *names: str) -> None:
    for name in names:
        try:
            importlib.import_module(name)
        except BaseException as error:
            words = str(error).split("\n")[0]
            why = f"{type(error).__name__}: {words}"
            channel.event("start_failed", what="torch cannot be imported", why=why)
            raise


def _one_thread(channel: Channel) -> bool:
    """Return whether this process may fork ranks that continue in its interpreter."""
    if threading.active_count() == 1:
        return True
    message = "starting cold: something has started a thread in every Python process here"
    channel.event("notice", message=message)
    return False


if __name__ == "__main__":
    run_agent(json.loads(sys.argv[1]), warm=False)
