"""A job whose nodes dial in to node 0: its head waits for them, the others serve it."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from distrun import env
from distrun.errors import DistrunError, ExitCode, MachineError, NodesMissing
from distrun.nodes.boot import line_for_sh
from distrun.nodes.dial.connection import Refused, dial
from distrun.nodes.dial.key import key_of, port_of
from distrun.nodes.dial.service import Service, joined
from distrun.schedulers import foreign
from distrun.schedulers.dialed import Dialed
from distrun.schedulers.own_site import own_address, resolved
from distrun.schedulers.place import OwnNode
from distrun.spec.job import Job
from distrun.wire import Lines, Message, encoded

Tell = Callable[[str], None]
_HUB = "distrun.nodes.dial.hub"
_WAIT_TOLD_S = 3.0
_RETRY_S = 0.5
_START_LIMIT_S = 60.0
_CONNECT_LIMIT_S = 5.0


class Head:
    """The hub of node 0, with the nodes that have dialed in to it.

    Args:
        own: This node.
        job: The job.
        tell: Called with a line about what happens.

    Raises:
        UsageError: The key or the port is wrong.
        MachineError: The port is in use, or node 0's name does not resolve in time.
        NodesMissing: Fewer nodes than the job needs have dialed in within the join timeout.
    """

    def __init__(self, own: OwnNode, job: Job, tell: Tell) -> None:
        key, port = key_of(os.environ).decode(), port_of(os.environ)
        self._tell = tell
        self._own = own
        self._nodes = {0: socket.gethostname()}
        self._addresses = {0: own_address(own, resolved(own, job.join_timeout, tell))}
        self._path = str(Path(tempfile.mkdtemp(prefix="distrun-")) / "hub")
        self._lines = Lines()
        self._hub = _started()
        try:
            self._serve(key, port)
            self._wait(job)
        except BaseException as error:
            self.end(error.exit_code if isinstance(error, DistrunError) else ExitCode.INTERNAL)
            raise

    @property
    def nodes(self) -> Dialed:
        """The nodes, for a plan: those that are missing have no address."""
        names = {number: f"node{number}" for number in range(self._own.count)}
        return Dialed(self._path, names | _distinct(self._nodes), self._addresses)

    def news(self) -> Iterator[int]:
        """Tell what has happened since; yield the signals that nodes were sent."""
        for message in self._messages(0.0):
            if isinstance(signum := message.get("signal"), int):
                name = self._nodes.get(message["node"], "a node")
                self._tell(f"{name} got signal {signum}: it is passed on to all nodes")
                yield signum

    def end(self, code: int) -> None:
        """Tell the nodes the exit code of the run, and end the hub."""
        assert self._hub.stdin and self._hub.stdout
        try:
            self._hub.stdin.write(encoded({"ended": code}))
            self._hub.stdin.flush()
            self._hub.stdin.close()
        except (OSError, ValueError):
            pass  # it has ended
        self._hub.wait()  # it removes the directory of its socket
        self._hub.stdout.close()

    def _serve(self, key: str, port: int) -> None:
        assert self._hub.stdin
        address = self._addresses[0]
        order = {"address": address, "port": port, "path": self._path, "key": key}
        self._hub.stdin.write(encoded({**order, "nnodes": self._own.count}))
        self._hub.stdin.flush()
        first = next(iter(self._messages(_START_LIMIT_S)), {})
        if "listening" not in first:
            why = first.get("failed", "its hub did not start")
            raise MachineError(
                f"node 0 cannot listen for the other nodes at {address}:{port}: {why}",
                f"{env.DIAL_PORT} names another port, the same on every node",
            )
        self._tell(f"node 0 of {self._own.count} waits for the others at {address}:{port}")

    def _wait(self, job: Job) -> None:
        """Wait until all nodes are there, or enough of them after the join timeout."""
        began, told = time.monotonic(), False
        while missing := self._missing():
            waited_s = time.monotonic() - began
            if waited_s >= job.join_timeout:
                if len(self._nodes) >= job.nodes.min < self._own.count:
                    return
                raise NodesMissing(
                    f"{_nodes(missing)} did not dial in within {job.join_timeout:g} s",
                    "their logs say why; they need the same key, and a way to this address",
                )
            if waited_s > _WAIT_TOLD_S and not told:
                told = True
                self._tell(f"waiting for {_nodes(missing)} to dial in")
            for message in self._messages(_RETRY_S):
                self._take(message)

    def _take(self, message: Message) -> None:
        if (number := message.get("joined")) is not None:
            self._nodes[number] = message["name"] or f"node{number}"
            self._addresses[number] = message["address"]
        elif (number := message.get("left")) is not None:
            raise NodesMissing(f"node {number} has left before the start", "its log says why")
        elif "stranger" in message:
            self._tell(f"refused a connection from {message['stranger']}: {message['why']}")
        elif "signal" in message:
            raise NodesMissing(
                f"node {message['node']} got signal {message['signal']} before the start"
            )

    def _missing(self) -> list[int]:
        return [number for number in range(self._own.count) if number not in self._nodes]

    def _messages(self, limit_s: float) -> Iterator[Message]:
        assert self._hub.stdout
        if select.select([self._hub.stdout], [], [], limit_s)[0]:
            yield from self._lines.feed(os.read(self._hub.stdout.fileno(), 1 << 16))


def _started() -> subprocess.Popen[bytes]:
    """Start the hub; it ends with this process."""
    return subprocess.Popen(
        ["sh", "-c", line_for_sh(_HUB, [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is handled here
    )


def _distinct(names: Mapping[int, str]) -> dict[int, str]:
    """Return the names; those that several nodes have get a number."""
    found = list(names.values())
    return {
        number: name if found.count(name) == 1 else f"{name}-{number}"
        for number, name in names.items()
    }


def _nodes(numbers: list[int]) -> str:
    return f"node{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def node_of(job: Job, sources: Mapping[str, str]) -> OwnNode | None:
    """Return this node, if it dials in to another one.

    Raises:
        UsageError: A variable of the platform is missing or wrong.
    """
    own = foreign.applied(job, sources, os.environ)[2]
    return own if own is not None and own.by_head and own.rank > 0 else None


def serve(own: OwnNode, job: Job, tell: Tell) -> int:
    """Dial in to the head, and serve it until the run has ended.

    Returns:
        The exit code of the run.

    Raises:
        UsageError: The key or the port is wrong, or the head refuses this node.
        MachineError: The head's name does not resolve, or the head has another key.
        NodesMissing: The head does not listen within the join timeout.
    """
    key, port = key_of(os.environ), port_of(os.environ)
    service = _joined(own, job, key, port, tell)
    tell(f"node {own.rank} of {own.count}: the head at {own.head} supervises and shows all nodes")
    if (code := service.to_end()) is None:
        tell(f"the head at {own.head} has ended without a word, or is lost")
        return ExitCode.NODE_LOST
    return code


def _joined(own: OwnNode, job: Job, key: bytes, port: int, tell: Tell) -> Service:
    address = resolved(own, job.join_timeout, tell)
    deadline, told = time.monotonic() + job.join_timeout, False
    first = {"node": own.rank, "nnodes": own.count, "name": socket.gethostname()}
    while True:
        try:
            connection, refused = joined(address, port, key, first)
            break
        except Refused as error:
            raise MachineError(
                f"node 0 at {address}:{port} does not take this node in: {error}",
                f"{env.DIAL_KEY} has to be the same on all nodes",
            ) from None
        except OSError as error:
            why = error.strerror or str(error)
        if time.monotonic() >= deadline:
            raise NodesMissing(
                f"node 0 at {address}:{port} was not there within {job.join_timeout:g} s: {why}",
                "its log says why; --join-timeout waits longer",
            )
        if not told:
            told = True
            tell(f"waiting for node 0 at {address}:{port}: {why}")
        time.sleep(_RETRY_S)
        address = resolved(own, 0.0, tell)
    if refused:
        connection.close()
        raise MachineError(f"node 0 refuses this node: {refused}", "start the job anew")
    environ = env.scrubbed(os.environ)
    return Service(connection, partial(dial, address, port, key, _CONNECT_LIMIT_S), environ)
