"""Has the machine of this node sampled: GPUs, CPU, memory, disk, network.

A process of its own does that, which imports psutil and pynvml: the agent stays small, and a call
that hangs in a driver stops nothing but the samples. It is started when the first sample is due,
so it costs a start nothing, and it ends with the agent.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from distrun.agent.ending import Tell
from distrun.processes import send
from distrun.wire import Lines

_PROGRAM = """
import json, sys
path, arguments = json.loads(sys.argv[1])
sys.path[:] = path
from distrun.probe.sampler import main
main(*arguments)
"""
"""It has this process's sys.path, and does not search the current directory."""
_LINE_NBYTES = 1 << 20


class Samples:
    """The samples of this node, passed on as events `system`.

    Args:
        selector: The agent's; its loop calls what is registered.
        tell: Sends events to the supervisor.
    """

    def __init__(self, selector: selectors.BaseSelector, tell: Tell) -> None:
        self._selector, self._tell = selector, tell
        self._every_s = 0.0
        self._start_at: float | None = None
        self._fd: int | None = None
        self._lines = Lines(tolerant=True, max_nbytes=_LINE_NBYTES)
        self.pids: tuple[int, ...] = ()
        """The process that samples, while it lives."""

    def begin(self, every_s: float) -> None:
        """Sample once in so many seconds from now on; 0: never."""
        if every_s > 0:
            self._every_s, self._start_at = every_s, time.monotonic() + every_s

    def due(self) -> Iterator[float]:
        """Yield the time at which to start."""
        if self._start_at is not None:
            yield self._start_at

    def on_time(self) -> None:
        """Start the process when it is time."""
        if self._start_at is None or time.monotonic() < self._start_at:
            return
        self._start_at = None
        try:
            self._start()
        except OSError as error:  # no process, or no descriptor, is left
            self._tell("notice", message=f"the machine is not sampled: {error.strerror}")

    def _start(self) -> None:
        self._fd, theirs = os.pipe()
        arguments = json.dumps([sys.path, [os.getpid(), theirs, self._every_s]])
        try:
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM, arguments],
                # The samples have their own pipe: libraries may print to stdout.
                pass_fds=(theirs,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        finally:
            os.close(theirs)
        child.returncode = 0  # the loop of the agent collects every child
        self.pids = (child.pid,)
        self._selector.register(self._fd, selectors.EVENT_READ, self._on_lines)

    def _on_lines(self) -> None:
        assert self._fd is not None
        if not (data := os.read(self._fd, 1 << 16)):
            self._forget()
            return
        for message in self._lines.feed(data):
            if isinstance(values := message.get("system"), dict):
                self._tell("system", time=message.get("time"), values=values)
            elif "problem" in message:
                self._tell("notice", message=f"sampling the machine: {message['problem']}")

    def _forget(self) -> None:
        assert self._fd is not None
        self._selector.unregister(self._fd)
        os.close(self._fd)
        self._fd, self.pids = None, ()

    def close(self) -> None:
        """End it."""
        for pid in self.pids:
            send(pid, signal.SIGKILL)
        if self._fd is not None:
            self._forget()
