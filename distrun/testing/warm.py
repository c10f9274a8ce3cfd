"""The caller's end of the warm server: started once, used by every run, ended with the caller."""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from distrun.env import TAG
from distrun.errors import DistrunError

_START_LIMIT_S = 120.0
_LARGE = ("torch.distributed.tensor", "torch.distributed.fsdp", "torch.distributed.checkpoint")
"""The first takes each rank half a second to import. The server has those that its caller has."""
_PYTHON = os.path.abspath(sys.executable)  # noqa: PTH100 # a link of a venv is not resolved
"""The interpreter's path as the server has it: absolute and without `..`."""


class Ended(NamedTuple):
    """The exit of a rank's process."""

    pid: int
    status: int
    """As os.waitpid gives it."""
    at_s: float
    """When it was seen, on the monotonic clock."""


class Server:
    """The warm server. It ends when the other end of its channel does."""

    def __init__(self) -> None:
        self.channel, theirs = socket.socketpair()
        fd = theirs.fileno()
        large = [name for name in _LARGE if name in sys.modules]
        program = (
            f"import sys; sys.path[:] = {sys.path!r}\n"
            f"from distrun.testing.server import main; main({fd}, {large!r})"
        )
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [_PYTHON, "-u", "-c", program],
            pass_fds=(fd,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            env={"OMP_NUM_THREADS": "1", **os.environ, TAG: f"run_ranks-{uuid.uuid4().hex}"},
            start_new_session=True,  # Ctrl-C is for the caller, who ends the ranks
        )
        theirs.close()
        self._owner = os.getpid()
        self._buffer = b""
        self._ended: list[Ended] = []
        self.channel.settimeout(_START_LIMIT_S)

    def is_usable(self) -> bool:
        """Return whether it is alive and was started by this process."""
        return self._owner == os.getpid() and self._process.poll() is None

    def fork(self, environ: dict[str, str], fds: Sequence[int]) -> int:
        """Fork a rank.

        Args:
            environ: Its whole environment.
            fds: Its stdin, stdout, stderr, report pipe and file for stacks.

        Returns:
            Its pid.

        Raises:
            DistrunError: The server has ended.
        """
        request = json.dumps({"command": [_PYTHON, "-u"], "environ": environ})
        try:
            data = request.encode() + b"\n"
            sent = socket.send_fds(self.channel, [data], list(fds))
            self.channel.sendall(data[sent:])
            while True:
                if "pid" in (message := self._message()):
                    return int(message["pid"])
                if "failed" in message:
                    raise DistrunError(f"run_ranks: {message['failed']}")
                self._note(message)
        except OSError:
            raise self._gone() from None
        except KeyboardInterrupt:
            self.stop()  # its answer would be read as the answer to the next request
            raise

    def exits(self) -> list[Ended]:
        """Return the exits reported since the last call; does not wait."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.channel, selectors.EVENT_READ)
            while b"\n" in self._buffer or selector.select(0):
                self._note(self._message())
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> None:
        """End the server, and with it every rank."""
        self.channel.close()
        self._process.wait()
        self._errors.close()

    def _note(self, message: dict[str, Any]) -> None:
        if message:  # else a heartbeat of the server
            self._ended.append(Ended(message["ended"], message["status"], message["monotonic"]))

    def _message(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            more = self.channel.recv(65536)
            if not more:
                raise self._gone()
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line) if line else {}
        return message

    def _gone(self) -> DistrunError:
        self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()
        return DistrunError(
            f"the server that ranks are forked from ended ({self._process.returncode}): {said}"
        )


_servers: list[Server] = []


def warm_server() -> Server:
    """Return the server of this process; starts it if there is none."""
    while _servers and not _servers[-1].is_usable():
        _servers.pop()
    if not _servers:
        _servers.append(Server())
    return _servers[-1]


def stop_server() -> None:
    """End the server, if there is one."""
    while _servers:
        if (server := _servers.pop()).is_usable():
            server.stop()
