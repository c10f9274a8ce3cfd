"""The agent: `python -u …/agent/__main__.py warm|cold [STDIN_FD]`, one a node.

Run as a file, not with -m, so that no module in the user's directory can come first.
It imports torch once and forks the forkserver, then becomes the node's agent; a rank
returns from here into the user's script, with nothing but the interpreter below it.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path and sys.path[0] == str(Path(__file__).parent):
    del sys.path[0]

import importlib
import os
import signal
import socket
import threading
import time

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


def main() -> None:
    """Become the agent, the forkserver or, in the end, a rank."""
    channel = _take_stdin_and_stdout()
    warm = sys.argv[1] == "warm"
    user_stdin = int(sys.argv[2]) if len(sys.argv) > 2 else None
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
        task = Forkserver(theirs, warm=warm).serve()
        if task is not None:
            task.run()
        return
    theirs.close()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)  # the supervisor decides, and says so on the pipe
    adopt_orphans()
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
    main()
