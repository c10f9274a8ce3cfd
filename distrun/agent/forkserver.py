"""The process that has imported torch once and forks every rank of its node.

It is itself a fork of the agent, made while the agent had one thread. It never talks
to anybody but the agent: requests with file descriptors come in over a socket, one
JSON line each; a line `{"pid": …}` answers, and a line `{"ended": …}` tells each death
with the moment it was seen, on the clock that agent and ranks share.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
from dataclasses import dataclass

from distrun import env
from distrun.agent import worker
from distrun.processes import die_with_parent

_MAX_REQUEST_NBYTES = 1 << 20
_QUIET = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class Descriptors:
    """What a rank gets, as file descriptors of this process."""

    stdin: int
    output: int
    report: int
    stacks: int
    guard: int


@dataclass(frozen=True)
class Task:
    """What a freshly forked rank has to do."""

    command: list[str]
    environ: dict[str, str]
    warm: bool
    descriptors: Descriptors

    def run(self) -> None:
        """Become the user's program; returns when the script came to its end."""
        fds = self.descriptors
        python = self.command[:2] == [sys.executable, "-u"]
        if not python:
            os.execvpe(self.command[0], self.command, self.environ)
        if self.warm:
            worker.write_stacks_to(fds.stacks)
            worker.reseed_as_a_fresh_interpreter_would()
            worker.run_as_main(self.command[2:], worker.Reporter(fds.report, os.getpid()))
            return
        passed = (fds.report, fds.stacks, fds.guard)
        for fd in passed:
            os.set_inheritable(fd, True)
        arguments = [*map(str, passed), *self.command[2:]]
        os.execve(sys.executable, [sys.executable, "-u", worker.__file__, *arguments], self.environ)


class Forkserver:
    """Serves the agent until the agent is gone."""

    def __init__(self, channel: socket.socket, *, warm: bool) -> None:
        self._channel = channel
        self._warm = warm
        self._fresh_handlers = {s: signal.getsignal(s) for s in _QUIET}

    def serve(self) -> Task | None:
        """Fork ranks on request.

        Returns:
            In a forked rank, its task; in the server itself None, when the agent is gone.
        """
        self._guard = os.pipe()  # this process alone holds the write end: see die_with_parent
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for signum in _QUIET:
            signal.signal(signum, signal.SIG_IGN)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        gc.collect()
        gc.freeze()  # a collection in a rank must not touch, and so copy, the shared pages
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            selector.register(wake_read, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fd == wake_read:
                        os.read(wake_read, 4096)
                        self._tell_deaths()
                    elif (task := self._take_request()) is not None:
                        for fd in (wake_read, wake_write):
                            os.close(fd)
                        return task
                    elif self._channel.fileno() < 0:
                        return None

    def _take_request(self) -> Task | None:
        data, fds, _, _ = socket.recv_fds(self._channel, _MAX_REQUEST_NBYTES, 4)
        while data and not data.endswith(b"\n"):
            data += self._channel.recv(_MAX_REQUEST_NBYTES)
        if not data:
            self._channel.close()
            return None
        for fd in fds:
            os.set_inheritable(fd, False)
        request = json.loads(data)
        stdin, output, report, stacks = fds
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            return self._become_rank(
                request, Descriptors(stdin, output, report, stacks, self._guard[0]), server
            )
        for fd in fds:
            os.close(fd)
        self._send({"pid": pid})
        return None

    def _become_rank(self, request: dict[str, object], fds: Descriptors, server: int) -> Task:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for signum, handler in self._fresh_handlers.items():
            signal.signal(signum, handler)
        os.setsid()
        os.close(self._guard[1])
        die_with_parent(server, fds.guard)
        self._channel.close()
        os.dup2(fds.stdin, 0)
        os.dup2(fds.output, 1)
        os.dup2(fds.output, 2)
        os.close(fds.stdin)
        os.close(fds.output)
        environ: dict[str, str] = request["environ"]  # type: ignore[assignment]
        environ[env.REPORT] = f"{fds.report}:{os.fstat(fds.report).st_ino}"
        os.environ.clear()
        os.environ.update(environ)
        return Task(request["command"], environ, self._warm, fds)  # type: ignore[arg-type]

    def _tell_deaths(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._send({"ended": pid, "status": status, "monotonic": time.monotonic()})

    def _send(self, message: dict[str, object]) -> None:
        try:
            self._channel.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass  # the agent is gone; the next read says so too
