"""The agent's loop between a supervisor and a forkserver that the test plays."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator

import pytest

from distrun.agent.channel import Channel
from distrun.agent.forks import Forks
from distrun.agent.node import Node
from distrun.env import TAG
from distrun.streams import NOTHING_HANDED


class Peer:
    """The supervisor's ends of an agent's pipes."""

    def __init__(self) -> None:
        commands_read, self._commands = os.pipe()
        self._events, events_write = os.pipe()
        self.channel = Channel(commands_read, events_write)
        self.forkserver, self.ours = socket.socketpair()
        self.forks = Forks(self.ours, os.getpid())
        self.node = Node(self.channel, self.forks, NOTHING_HANDED)

    def said(self) -> list[dict[str, object]]:
        lines = os.read(self._events, 1 << 16).splitlines()
        return [json.loads(line) for line in lines if line]

    def says(self, data: bytes) -> None:
        os.write(self._commands, data)


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    monkeypatch.setenv(TAG, "unit-test/0")
    peer = Peer()
    yield peer
    peer.channel.close()
    peer.forkserver.close()
    peer.ours.close()


def test_a_parser_that_exits_is_told_as_the_end_of_the_engine(peer: Peer) -> None:
    order = {"arguments": ["--no-such-option", "train.py"], "restarts": 0, "max_restarts": 0}
    peer.node._engine(order)
    (event,) = peer.said()
    assert (event["event"], event["type"]) == ("engine_failed", "SystemExit")


def test_a_beat_in_the_middle_of_a_command_does_not_matter(peer: Peer) -> None:
    peer.says(b'{"comm\0and": "exit"}\0\n\0{"command": "kill"')
    assert peer.channel.commands() == [{"command": "exit"}]
    peer.says(b"}\n")
    assert peer.channel.commands() == [{"command": "kill"}]


def test_requests_reach_the_forkserver_one_by_one(peer: Peer) -> None:
    fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(10)]
    peer.forks.begin({"A": "1"})
    peer.forks.ask({"RANK": "0"}, ["python"], fds[:5])
    peer.forks.ask({"RANK": "1"}, ["python"], fds[5:])
    for answer in (b'{"taken": true}\n', b'{"pid": 7}\n{"ended": 7, "status": 0}\n', b"\n"):
        data, passed, *_ = socket.recv_fds(peer.forkserver, 1 << 16, 10)
        assert data.count(b"\n") == 1
        for fd in passed:
            os.close(fd)
        peer.forkserver.sendall(answer)
        replies = peer.forks.read()
        if answer != b"\n":
            assert replies
    peer.forkserver.sendall(b'{"failed": "no room"}\n')
    assert peer.forks.read() == [{"failed": "no room"}]
    peer.forkserver.close()
    assert peer.forks.read() is None
