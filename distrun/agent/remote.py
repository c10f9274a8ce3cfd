"""The first process of a node on another machine: it starts the agent, and outlives it.

Its standard input is the conversation with the supervisor. The first message is the order; all
that follows, and all output, is the agent's. When the agent has ended, or the connection has been
closed for longer than the agent needs, no process of the node is left.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

from distrun import env
from distrun.agent_start import agent_command, own_path
from distrun.processes import adopt_orphans, sweep
from distrun.silence import LOST_AFTER_S
from distrun.streams import Streams
from distrun.wire import BEAT_LINE, Message, encoded, first_message, greet

_AFTER_CLOSE_S = 8.0
"""How long the agent may take to end its ranks when the connection is closed."""
_LOOK_S = 0.2
_CLOSED = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)


def main(*, greets: bool = True) -> None:
    """Read the order, start the agent, and wait.

    Args:
        greets: A login shell has started this process; else it was the probe before.
    """
    if greets:
        greet(1)
    if not select.select([0], [], [], LOST_AFTER_S)[0]:
        return  # the launcher does not go on, or is no more to be reached
    if (received := first_message(0)) is None:
        return
    order, rest = received
    commands_fd, events_fd = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what something prints must not be read as an event
    try:
        os.chdir(order["workdir"])
        agent = _start(order, commands_fd, events_fd, rest)
    except OSError as error:
        why = f"{error.filename or 'python'}: {error.strerror}"
        failed = {"event": "start_failed", "what": "the agent cannot be started", "why": why}
        _tell(events_fd, failed)
        sys.exit(1)
    _wait(agent, commands_fd)
    if agent.returncode:  # None: it has not ended
        died = signal.Signals(-agent.returncode).name if agent.returncode < 0 else ""
        why = f"was killed by {died}" if died else f"ended with {agent.returncode}"
        _tell(events_fd, {"event": "node_broken", "why": f"its agent {why}"})
    sweep(order["tag"], below=os.getpid())


def _start(
    order: Message, commands_fd: int, events_fd: int, rest: bytes
) -> subprocess.Popen[bytes]:
    own: dict[str, Any] = {
        "commands_fd": commands_fd,
        "events_fd": events_fd,
        "streams": Streams(**order["streams"]).to_json(),
        "received": rest.decode(),
    }
    environ = env.scrubbed(dict(os.environ)) | order["environ"]
    words: list[str] | None = order["words"]
    if words and order.get("own_program"):
        words = [own_path(order["own_program"]), *words[1:]]
    argv, environ = agent_command(words, environ, order["tag"], own)
    adopt_orphans()
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        env=environ,
        pass_fds=[commands_fd, events_fd],
        start_new_session=True,
    )


def _wait(agent: subprocess.Popen[bytes], commands_fd: int) -> None:
    """Wait until the agent has ended, or has not although the connection is closed."""
    closed_at: float | None = None
    poller = select.poll()
    poller.register(commands_fd, _CLOSED)
    with suppress(AttributeError, OSError):  # without pidfds it is looked at often enough
        poller.register(os.pidfd_open(agent.pid), select.POLLIN)
    while agent.poll() is None:
        ready = [fd for fd, _ in poller.poll(_LOOK_S * 1000)]
        if commands_fd in ready:
            closed_at = time.monotonic()
            poller.unregister(commands_fd)
        if closed_at is not None and time.monotonic() - closed_at > _AFTER_CLOSE_S:
            return


def _tell(events_fd: int, event: Message) -> None:
    try:
        os.write(events_fd, BEAT_LINE + encoded(event))
    except OSError:
        pass  # the connection is closed


if __name__ == "__main__":
    main()
