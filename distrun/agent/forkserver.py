"""The process that has imported torch once and forks every rank of its node.

It is a fork of the agent, made while the agent had one thread, and talks to the agent alone.
Requests with file descriptors come over a socket, one JSON line each. A line `{"pid": …}` or
`{"failed": …}` answers. A line `{"ended": …}` reports each death with the time it was seen,
on the clock that agent and ranks share. A blank line a second says that it is alive. When
the agent is gone, it ends the ranks and all that they started.
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
from distrun.agent import rank_boot
from distrun.agent.deaths import watch_deaths
from distrun.processes import die_with_parent, sweep
from distrun.signals import FORWARDED, STOPPING
from distrun.silence import BEAT_S

_MAX_REQUEST_NBYTES = 1 << 20
QUIET = (*STOPPING, *FORWARDED)
"""Signals that agent and forkserver ignore: the supervisor decides what a rank gets."""
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


@dataclass(frozen=True)
class Descriptors:
    """What a rank gets, as file descriptors of this process."""

    stdin: int
    stdout: int
    stderr: int
    report: int
    stacks: int
    guard: int


class Forkserver:
    """Serves the agent until the agent is gone."""

    def __init__(self, channel: socket.socket, *, warm: bool) -> None:
        self._channel = channel
        self._warm = warm
        self._environ: dict[str, str] = {}
        """What all ranks have in common."""
        self._fresh_handlers = {s: signal.getsignal(s) for s in QUIET}

    def serve(self) -> None:
        """Fork ranks on request; returns in a warm rank alone, ready for its script."""
        self._guard = os.pipe()  # this process alone holds the write end: see die_with_parent
        for signum in QUIET:
            signal.signal(signum, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would reap by itself
        self._deaths = watch_deaths()
        # Not gc.freeze(): it would also freeze the objects of the rank's `__main__`, and
        # files that the script never closes would lose their last bytes.
        gc.collect()
        with selectors.PollSelector() as selector:  # a fork does not inherit a kqueue
            selector.register(self._channel, selectors.EVENT_READ)
            selector.register(self._deaths.fd, selectors.EVENT_READ)
            while True:
                ready = selector.select(BEAT_S)
                if not ready:
                    self._send(None)
                for key, _ in ready:
                    if key.fd == self._deaths.fd:
                        self._tell_deaths()
                    elif self._take_request():
                        return

    def _take_request(self) -> bool:
        """Fork one rank; return True in that rank if it is to continue in this interpreter."""
        try:
            data, fds, _, _ = socket.recv_fds(self._channel, _MAX_REQUEST_NBYTES, 5)
            while data and not data.endswith(b"\n"):
                more = self._channel.recv(_MAX_REQUEST_NBYTES)
                data = data + more if more else b""
        except ConnectionError:  # it had not read all requests
            data, fds = b"", []
        if not data:  # the agent is gone
            sweep(os.environ[env.TAG], below=os.getpid())
            os._exit(0)
        request = json.loads(data)
        if "common" in request:
            self._environ = request["common"]
            self._send({"taken": True})
            return False
        for fd in fds:
            os.set_inheritable(fd, False)
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:  # this user may have no more processes
            self._send({"failed": error.strerror})
            return False
        finally:
            if os.getpid() == server:
                for fd in fds:
                    os.close(fd)
        if pid == 0:
            stdin, stdout, stderr, report, stacks = fds
            guard = self._guard[0]
            descriptors = Descriptors(stdin, stdout, stderr, report, stacks, guard)
            self._become_rank(server, descriptors)
            environ = self._environ | request["environ"]
            become_program(request["command"], environ, descriptors, warm=self._warm)
            return True
        try:
            self._deaths.watch(pid)
        except OSError as error:  # no more descriptors
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._send({"failed": error.strerror})
            return False
        self._send({"pid": pid})
        return False

    def _become_rank(self, server: int, fds: Descriptors) -> None:
        self._deaths.close()
        for signum, handler in self._fresh_handlers.items():
            signal.signal(signum, handler)
        os.setsid()
        os.close(self._guard[1])
        die_with_parent(server, fds.guard)
        self._channel.close()
        for target, fd in enumerate((fds.stdin, fds.stdout, fds.stderr)):
            os.dup2(fd, target)
            os.close(fd)

    def _tell_deaths(self) -> None:
        for pid, status in self._deaths.reap():
            self._send({"ended": pid, "status": status, "monotonic": time.monotonic()})

    def _send(self, message: dict[str, object] | None) -> None:
        try:
            self._channel.sendall((json.dumps(message).encode() if message else b"") + b"\n")
        except OSError:
            pass  # the agent is gone; the next read says so too


def become_program(
    command: list[str], environ: dict[str, str], fds: Descriptors, *, warm: bool
) -> None:
    """Turn this fork into a rank; returns if the interpreter does the rest.

    Args:
        command: As torchrun would run it: `python -u …`, or a program of its own.
        environ: The rank's whole environment.
        fds: Its descriptors.
        warm: Continue in this interpreter, which has imported torch.
    """
    environ[env.REPORT] = f"{fds.report}:{os.fstat(fds.report).st_ino}"
    python = command[:2] == [sys.executable, "-u"]
    if python and warm:
        os.environ.clear()
        os.environ.update(environ)
        rank_boot.prepare_warm(fds.report, fds.stacks)
        return
    if python:
        for fd in (fds.report, fds.stacks, fds.guard):
            os.set_inheritable(fd, True)
        environ = env.booted(
            environ, role="rank", report_fd=fds.report, stacks_fd=fds.stacks, guard_fd=fds.guard
        )
    for signum in _IGNORED_BY_PYTHON:  # exec keeps that, and no program expects it
        signal.signal(signum, signal.SIG_DFL)
    try:
        os.execvpe(command[0], command, environ)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode(errors="surrogateescape"))
        os._exit(127)  # as in a shell
