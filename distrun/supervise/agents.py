"""One node's agent as the supervisor sees it: a child process and three pipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distrun.env import TAG, booted
from distrun.plan.model import Program
from distrun.processes import widen_pipe
from distrun.silence import Silence
from distrun.streams import Streams

_COLD_AGENT = str(Path(__file__).parent.parent / "agent" / "main.py")
_READ_NBYTES = 1 << 20


@dataclass
class Agent:
    """A running agent. `index` is the node's number, which never changes."""

    index: int
    host: str
    tag: str
    pid: int
    commands_fd: int
    events_fd: int
    stderr_fd: int
    node_rank: int = -1
    stage: str = "starting"
    joined: bool = False
    """It is ready to start its ranks."""
    stopped: bool = False
    """It has reported that none of its ranks lives after a stop."""
    succeeded: bool = False
    swept: bool = False
    """It has reported that no process of its node is left."""
    gone: bool = False
    killed: bool = False
    """It was killed by the supervisor."""
    last_words: bytes = b""
    """The end of what it wrote to stderr."""
    ranks: dict[int, int] = field(default_factory=dict)
    """Live ranks and their pids."""
    begun: bool = False
    """All of its ranks have been started."""
    silence: Silence = field(default_factory=Silence)
    why_lost: str = ""
    """Why the supervisor gave it up, if it did not end by itself."""
    _partial: bytes = b""
    _raw_header: dict[str, Any] = field(default_factory=dict)
    _raw_left: int = 0
    _outgoing: bytes = b""

    def send(self, command: str, **fields: Any) -> None:
        """Send a command to the agent."""
        self._outgoing += json.dumps({"command": command, **fields}).encode() + b"\n"
        self.flush()

    def flush(self) -> bool:
        """Write what fits into the pipe; return True if some is left."""
        try:
            while self._outgoing and not self.gone:
                self._outgoing = self._outgoing[os.write(self.commands_fd, self._outgoing) :]
        except BlockingIOError:
            return True
        except OSError:
            self._outgoing = b""  # it is gone: the end of its events shows that
        return False

    def read_events(self) -> list[tuple[dict[str, Any], memoryview]] | None:
        """Return its events, each with the raw bytes that follow it; None at its end.

        Output that has come in part is returned in part, to avoid copies of large output.
        """
        data = os.read(self.events_fd, _READ_NBYTES)
        if not data:
            return None
        self.silence.heard()
        events, view, at = [], memoryview(data), 0
        while at < len(data):
            if self._raw_left:
                end = min(at + self._raw_left, len(data))
                events.append((self._raw_header, view[at:end]))
                self._raw_left -= end - at
                at = end
                continue
            newline = data.find(b"\n", at)
            if newline < 0:
                self._partial += data[at:]
                break
            line = self._partial + data[at:newline]
            self._partial, at = b"", newline + 1
            if not line:
                continue  # it only says that it is alive
            header = json.loads(line)
            self._raw_left = header.get("nbytes", 0)
            if self._raw_left:
                self._raw_header = header
            else:
                events.append((header, view[:0]))
        return events

    def close(self) -> None:
        """Close the pipes."""
        for fd in (self.commands_fd, self.events_fd, self.stderr_fd):
            os.close(fd)


def start_agent(
    index: int,
    host: str,
    run_id: str,
    environ: Mapping[str, str],
    *,
    program: Program | None,
    streams: Streams,
) -> Agent:
    """Start the agent of one node on this machine.

    Args:
        index: Which node.
        host: Its name in messages.
        run_id: The run it belongs to.
        environ: The whole environment of the agent, and so of its ranks.
        program: What warm ranks, forked from the agent's own interpreter, will find as
            its command line; None for cold ranks.
        streams: What the ranks have as stdin, stdout and stderr.

    Raises:
        OSError: The process cannot be started.
    """
    commands_read, commands_write = os.pipe()
    events_read, events_write = os.pipe()
    stderr_read, stderr_write = os.pipe()
    order = {
        "commands_fd": commands_read,
        "events_fd": events_write,
        "streams": streams.to_json(),
    }
    if program is None:
        argv = [sys.executable, "-u", _COLD_AGENT, json.dumps(order)]
    else:
        module = ["-m"] if program.module else []
        argv = [sys.executable, "-u", *module, program.path, *program.args]
        environ = booted(environ, role="agent", **order)
    tag = f"{run_id}/{index}"
    try:
        # Its pid is waited for by the supervisor, which adopts orphans and must collect
        # every child anyway; so nothing of Popen is used after the start.
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=stderr_write,  # what a sitecustomize prints must not be read as an event
            stderr=stderr_write,
            env={**environ, TAG: tag},
            start_new_session=True,
            pass_fds=[commands_read, events_write, *streams.open_fds],
        )
    except OSError:
        for fd in (commands_write, events_read, stderr_read):
            os.close(fd)
        raise
    finally:
        for fd in (commands_read, events_write, stderr_write):
            os.close(fd)
    os.set_blocking(commands_write, False)
    widen_pipe(events_read)
    child.returncode = 0  # keeps Popen's destructor from waiting for it
    return Agent(index, host, tag, child.pid, commands_write, events_read, stderr_read)
