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

import importlib
import os
import signal
import socket
import threading
import time
import traceback

from distrun.agent.channel import Channel
from distrun.agent.forkserver import Forkserver
from distrun.agent.node import Node
from distrun.processes import adopt_orphans, die_with_parent

PRELOADED = (
    "torch",
    "torch.distributed",
    # DDP imports it later: its default arguments would then hold the process group, and
    # with it gloo's threads, which abort the process when they are still there at its end.
    "torch.distributed.nn",
)
"""What is imported once a node, before any rank is forked."""


def run_agent(*, warm: bool, user_stdin: int | None) -> None:
    """Become the agent and the forkserver, which end in here; returns in warm ranks alone.

    Args:
        warm: Import torch now, and fork the ranks from this process.
        user_stdin: Descriptor that rank 0 gets as its standard input.
    """
    try:
        _run(warm=warm, user_stdin=user_stdin)
    except BaseException:  # whatever it is, nothing of it may reach the user's script
        traceback.print_exc()
        os._exit(1)


def _run(*, warm: bool, user_stdin: int | None) -> None:
    channel = _take_stdin_and_stdout()
    channel.event("node_stage", stage="starting", pid=os.getpid())
    if warm:
        channel.event("node_stage", stage="importing torch")
        for name in PRELOADED:
            importlib.import_module(name)
        if threading.active_count() > 1:  # a sitecustomize, say: no fork of this may go on
            warm = False
            channel.event(
                "notice",
                message="starting cold: something has started a thread in"
                " every Python process of this environment",
            )
    ours, theirs = socket.socketpair()
    agent = os.getpid()
    if os.fork() == 0:
        ours.close()
        channel.close()
        if user_stdin is not None:
            os.close(user_stdin)
        die_with_parent(agent)
        Forkserver(theirs, warm=warm).serve()
        return
    theirs.close()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)  # the supervisor decides, and says so on the pipe
    adopt_orphans()
    # In this thread: `site` is still being imported, and another thread would wait for it.
    importlib.import_module("distrun.agent.engine")
    channel.event("node_joined", monotonic=time.monotonic())
    Node(channel, ours, user_stdin).run()
    os._exit(0)  # torch's engine may still sit in its thread, and has nothing to save


def _take_stdin_and_stdout() -> Channel:
    """Move the two pipes off 0 and 1, where libraries and ranks expect other things."""
    commands, events = os.dup(0), os.dup(1)  # dup'd descriptors are not inherited by exec
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    return Channel(commands, events)


if __name__ == "__main__":
    run_agent(warm=False, user_stdin=int(sys.argv[1]) if len(sys.argv) > 1 else None)
