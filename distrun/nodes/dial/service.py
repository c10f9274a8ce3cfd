"""A node that has dialed in to the head of its run: it starts what the head asks for."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

from distrun.nodes.dial.connection import DialConnection, Refused, dial
from distrun.silence import BEAT_S, LOST_AFTER_S
from distrun.wire import Message

_END_LIMIT_S = 15.0
"""Longer than the first process of a node waits for its agent when the connection is closed."""
_CONNECT_LIMIT_S = 5.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class Service:
    """Serves one head until the run has ended.

    Args:
        connection: The connection to the head, which has taken this node in.
        dials: Makes another connection to the head.
        environ: The environment of the programs.
    """

    def __init__(
        self,
        connection: DialConnection,
        dials: Callable[[], DialConnection],
        environ: Mapping[str, str],
    ) -> None:
        self._connection = connection
        self._dials = dials
        self._environ = environ
        self._children: list[subprocess.Popen[bytes]] = []
        self._signals: list[int] = []

    def to_end(self) -> int | None:
        """Serve; return the exit code of the run, None if the head is lost.

        A signal that ends a launch is told to the head, which stops all nodes.
        """
        before = {signum: signal.getsignal(signum) for signum in _SIGNALS}
        for signum, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(signum, self._on_signal)
        try:
            return self._serve()
        finally:
            self._connection.close()
            self._end_children()
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _on_signal(self, signum: int, _: FrameType | None) -> None:
        self._signals.append(signum)

    def _serve(self) -> int | None:
        self._connection.limit(LOST_AFTER_S)
        heard_at = time.monotonic()
        while time.monotonic() - heard_at < LOST_AFTER_S:
            if self._connection.poll(BEAT_S):
                if (message := self._connection.receive()) is None:
                    return None
                heard_at = time.monotonic()
                if isinstance(code := message.get("ended"), int):
                    return code
                if "open" in message:
                    threading.Thread(target=self._open, args=(message,), daemon=True).start()
            told: Message = {"signal": self._signals.pop(0)} if self._signals else {}
            try:
                self._connection.send(told)
            except OSError:
                return None
            self._children = [child for child in self._children if child.poll() is None]
        return None

    def _open(self, message: Message) -> None:
        """Start a program whose input and output are one new connection, its words another."""
        streams = []
        try:
            for name in ("talk", "words"):
                connection = self._dials()
                connection.send({"channel": message["open"], "stream": name})
                streams.append(connection.into_stream())
            talk, words = streams
            child = _started(message["argv"], talk.fileno(), words.fileno(), self._environ)
            self._children.append(child)
        except (OSError, Refused) as error:  # the head sees the end of the streams
            if len(streams) == 2:
                why = error.strerror if isinstance(error, OSError) else error
                with suppress(OSError):
                    streams[1].sendall(f"{message['argv'][0]}: {why}\n".encode())
        finally:
            for stream in streams:
                stream.close()

    def _end_children(self) -> None:
        """Wait for the programs: without a connection they end by themselves."""
        deadline = time.monotonic() + _END_LIMIT_S
        for child in self._children:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _started(
    argv: Sequence[str], talk_fd: int, words_fd: int, environ: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        stdin=talk_fd,
        stdout=talk_fd,
        stderr=words_fd,
        env=environ,
        start_new_session=True,
    )


def joined(
    address: str, port: int, key: bytes, first: Mapping[str, Any]
) -> tuple[DialConnection, str]:
    """Dial in to the head once.

    Args:
        address: Of the head.
        port: Where it listens for nodes.
        key: The key of the run.
        first: `node`, `nnodes` and `name` of this node.

    Returns:
        The connection, and why the head refuses this node, "" if it does not.

    Raises:
        Refused: What listens there does not know the key.
        OSError: Nothing listens there, or it has ended.
    """
    connection = dial(address, port, key, _CONNECT_LIMIT_S)
    connection.limit(LOST_AFTER_S)
    connection.send(dict(first))
    answer = connection.receive()
    if answer is None:
        connection.close()
        raise ConnectionResetError("the head has closed the connection")
    return connection, str(answer.get("refused", ""))
