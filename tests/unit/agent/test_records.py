"""The agent's socket to its ranks: what comes is kept, and nothing that comes does harm."""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
from collections.abc import Iterator

import pytest

from distrun.agent import records
from distrun.agent.records import LOOK, RECORD, Known, Records
from distrun.env import RECORDS

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="abstract sockets"),
    pytest.mark.timeout(60),
]
ME = os.getpid()


class Node:
    """An agent whose only rank is this process."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.live = {ME}
        self.records = Records(self.selector, lambda: self.live)
        self.name = self.records.environment({})[RECORDS]
        self.sockets: list[socket.socket] = []

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(f"\0{self.name}")
        self.sockets.append(connection)
        self.turn()
        return connection

    def turn(self) -> None:
        while ready := self.selector.select(0):
            for key, _ in ready:
                key.data()

    def sends(self, connection: socket.socket, data: bytes) -> None:
        """Send it in parts, with the agent's loop between them."""
        for at in range(0, len(data), 1 << 16):
            try:
                connection.sendall(data[at : at + (1 << 16)])
            except BrokenPipeError:
                return
            self.turn()


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    yield node
    for connection in node.sockets:
        connection.close()
    node.records.close()
    assert not node.selector.get_map()
    node.selector.close()


def answer(asked: str = LOOK, **fields: object) -> bytes:
    return json.dumps({"asked": asked, "answer": fields}).encode() + b"\n"


def is_cut_off(connection: socket.socket) -> bool:
    try:
        while connection.recv(1 << 16):
            pass  # the requests
    except ConnectionResetError:
        pass
    return True


def test_ranks_record_200_collectives_unless_the_user_has_set_a_number(node: Node) -> None:
    assert node.records.environment({"A": "1"}) == {
        "A": "1",
        "TORCH_FR_BUFFER_SIZE": "200",
        "DISTRUN_RECORDS": node.name,
    }
    for name in ("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE"):
        for size in ("0", "7", "", "abc"):
            users = {name: size}
            assert node.records.environment(users) == users | {"DISTRUN_RECORDS": node.name}


def test_the_last_answer_is_kept_with_its_age(node: Node) -> None:
    rank = node.connect()
    assert node.records.known(ME) == Known()
    node.records.ask(LOOK)
    assert node.records.awaits(LOOK) and not node.records.awaits(RECORD)
    assert rank.recv(100) == b"look\n"
    node.sends(rank, answer(count=1))
    assert not node.records.awaits(LOOK)
    first = node.records.known(ME)
    assert first.answer == {"count": 1}
    assert node.records.known(ME).age_s >= first.age_s >= 0


def test_a_rank_that_does_not_answer_is_not_asked_again_and_again(node: Node) -> None:
    rank = node.connect()
    for _ in range(5):
        node.records.ask(LOOK)
    node.records.ask(RECORD)
    assert rank.recv(100) == b"look\nrecord\n"
    node.sends(rank, answer(LOOK, both=True))
    assert not node.records.awaits(RECORD) and not node.records.awaits(LOOK)


@pytest.mark.parametrize("order", [(LOOK, RECORD), (RECORD, LOOK)])
def test_two_requests_may_be_answered_one_by_one(node: Node, order: tuple[str, str]) -> None:
    rank = node.connect()
    for what in order:
        node.records.ask(what)
    for number, what in enumerate(order):
        node.sends(rank, answer(what, number=number))
        assert node.records.known(ME).answer == {"number": number}
    node.records.ask(RECORD)
    assert node.records.awaits(RECORD), "it is still connected"


def test_an_answer_may_come_in_parts(node: Node) -> None:
    rank = node.connect()
    node.records.ask(LOOK)
    line = answer(text="x" * 500_000)
    for part in (line[:10], line[10:-1], line[-1:]):
        assert node.records.awaits(LOOK)
        node.sends(rank, part)
    assert node.records.known(ME).answer == {"text": "x" * 500_000}


NESTED = b'{"asked":"look","answer":{"trace":' + b"[" * 100_000 + b"]" * 100_000 + b"}}\n"
GARBAGE = {
    "no JSON": b"\xff\xfe\0garbage\n",
    "an empty line": b"\n",
    "a number": b"7\n",
    "no answer": b'{"asked":"look"}\n',
    "an answer that is none": b'{"asked":"look","answer":[]}\n',
    "an unknown request": b'{"asked":"x","answer":{}}\n',
    "a list as request": b'{"asked":["record"],"answer":{}}\n',
    "a deep one": NESTED,
    "two lines": answer(a=1) + answer(a=2),
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_a_rank_that_sends_something_else_is_cut_off(node: Node, data: bytes) -> None:
    rank = node.connect()
    node.records.ask(LOOK)
    node.sends(rank, data)
    assert is_cut_off(rank)
    assert not node.records.awaits(LOOK), "nobody waits for it"


def test_a_rank_that_speaks_unasked_is_cut_off_and_may_come_again(node: Node) -> None:
    rank = node.connect()
    node.sends(rank, answer(unasked=1))
    assert is_cut_off(rank)
    assert node.records.known(ME).answer is None
    rank = node.connect()
    node.records.ask(LOOK)
    node.sends(rank, answer(again=1))
    assert node.records.known(ME).answer == {"again": 1}


def test_a_line_without_an_end_is_given_up(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_LIMIT_NBYTES", 1 << 20)
    rank = node.connect()
    node.records.ask(LOOK)
    node.sends(rank, b"x" * (3 << 20))
    assert is_cut_off(rank)
    assert not node.records.awaits(LOOK)


def test_a_rank_that_connects_before_the_agent_knows_of_it_is_asked_later(node: Node) -> None:
    node.live.clear()
    rank = node.connect()
    node.records.ask(LOOK)
    assert not node.records.awaits(LOOK)
    node.live.add(ME)
    node.records.ask(RECORD)
    assert rank.recv(100) == b"record\n"
    node.sends(rank, answer(RECORD, known=True))
    assert node.records.known(ME).answer == {"known": True}


def test_a_process_that_does_not_become_a_rank_is_cut_off(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.live.clear()
    stranger = node.connect()
    monkeypatch.setattr(records, "_KNOWN_WITHIN_S", 0.0)
    node.records.ask(LOOK)
    assert is_cut_off(stranger)


def test_a_process_that_is_no_rank_may_say_nothing(node: Node) -> None:
    node.live.clear()
    stranger = node.connect()
    node.sends(stranger, answer(known=True))
    assert is_cut_off(stranger)
    assert node.records.known(ME) == Known()


def test_a_rank_that_has_ended_is_not_waited_for(node: Node) -> None:
    rank = node.connect()
    node.records.ask(LOOK)
    node.live.clear()
    assert not node.records.awaits(LOOK)
    node.records.ask(LOOK)
    assert is_cut_off(rank)


def test_a_rank_that_reads_nothing_blocks_nobody(node: Node) -> None:
    rank = node.connect()
    for _ in range(100_000):
        node.records.ask(LOOK)
        node.records._recorders[ME].awaited.clear()  # as if it had answered
    assert rank.recv(5) == b"look\n"
