"""Who has started the launch hears everything in order, and never holds up the run."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator

import pytest

from distrun.supervise import observer
from distrun.supervise.observer import Observer

MANY = 5000
"""So many events of 100 bytes are several times what any pipe takes."""


class Client:
    """The client's ends of the two pipes."""

    def __init__(self, received: bytes = b"") -> None:
        commands_read, self.commands_fd = os.pipe()
        self.events_fd, events_write = os.pipe()
        self._open = {commands_read, self.commands_fd, self.events_fd, events_write}
        self.observer = Observer(commands_read, events_write, received)
        os.set_blocking(self.events_fd, False)

    def hears(self) -> bytes:
        """Return all that is in the pipe now."""
        heard = b""
        try:
            while data := os.read(self.events_fd, 1 << 20):
                heard += data
        except BlockingIOError:
            pass
        return heard

    def hang_up(self, fd: int) -> None:
        self._open.remove(fd)
        os.close(fd)

    def close(self) -> None:
        for fd in self._open:
            os.close(fd)


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.close()


def numbered(data: bytes) -> list[int]:
    return [json.loads(line)["n"] for line in data.splitlines() if line]


def all_heard(client: Client) -> list[int]:
    """Read while there is something to write; return the numbers of the events."""
    heard = b""
    while client.observer.flush():
        heard += client.hears()
    return numbered(heard + client.hears())


def test_commands_come_whole_however_they_arrive(client: Client) -> None:
    os.write(client.commands_fd, b'{"signal": 15}\n{"sig')
    assert client.observer.read_commands() == [{"signal": 15}]
    os.write(client.commands_fd, b'nal": 2}\n')
    assert client.observer.read_commands() == [{"signal": 2}]
    client.hang_up(client.commands_fd)
    assert client.observer.read_commands() is None and client.observer.gone


def test_commands_that_came_with_the_order_are_not_lost() -> None:
    client = Client(b'{"signal": 15}\n{"signal"')
    assert client.observer.early_commands() == [{"signal": 15}]
    os.write(client.commands_fd, b": 2}\n")
    assert client.observer.read_commands() == [{"signal": 2}]
    client.close()


def test_an_event_is_a_line_and_written_at_once(client: Client) -> None:
    client.observer.tell({"event": "notice", "message": "two\nlines"})
    (line,) = client.hears().splitlines()
    assert json.loads(line) == {"event": "notice", "message": "two\nlines"}


def test_numbers_of_training_are_thinned_and_nothing_else_is(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observer, "_METRICS_S", 1000.0)
    client.observer._metrics_at = -1e9  # the clock may have begun less than 1000 s ago
    for n in range(3):
        client.observer.tell({"event": "metrics", "n": n})
        client.observer.tell({"event": "notice", "n": 10 + n})
    assert numbered(client.hears()) == [0, 10, 11, 12]


def test_a_client_that_does_not_read_holds_nothing_up_and_hears_all_of_it_later(
    client: Client,
) -> None:
    event = {"event": "notice", "text": "x" * 100}
    for n in range(MANY):
        client.observer.tell({**event, "n": n})
    assert client.observer.flush(), "it wants to be called again"
    assert all_heard(client) == list(range(MANY))


def test_beyond_a_limit_events_are_dropped_but_never_the_end(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observer, "_BACKLOG_NBYTES", 1000)
    for n in range(MANY):
        client.observer.tell({"event": "notice", "text": "x" * 100, "n": n})
    client.observer.tell({"event": "ended", "n": MANY})
    found = all_heard(client)
    assert found[-1] == MANY
    assert found[:-1] == list(range(len(found) - 1)) and 10 < len(found) < MANY // 2


def test_numbers_are_dropped_before_what_happens(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observer, "_METRICS_S", 0.0)
    for n in range(MANY):
        client.observer.tell({"event": "metrics", "text": "x" * 1000, "n": n})
    client.observer.tell({"event": "node_lost", "n": MANY})
    found = all_heard(client)
    assert found[-1] == MANY and len(found) < MANY


def test_a_client_that_is_gone_is_no_fault(client: Client) -> None:
    client.hang_up(client.events_fd)
    client.observer.tell({"event": "notice"})
    assert client.observer.gone
    assert client.observer.flush() is None
    client.observer.flush_for(60.0)  # returns at once, or the test's limit says so


def test_many_rings_are_one_empty_message_and_the_last_is_not_forgotten(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.observer._rung_at = -1e9
    monkeypatch.setattr(observer, "_DOORBELL_S", 1000.0)
    for _ in range(100):
        client.observer.ring()
        client.observer.flush()
    assert client.hears() == b"{}\n"
    assert client.observer.flush() == 1000.0, "there is one more to come"
    monkeypatch.setattr(observer, "_DOORBELL_S", 0.0)
    assert client.observer.flush() is None
    assert client.hears() == b"{}\n"


def test_the_farewell_waits_for_a_slow_reader(client: Client) -> None:
    os.set_blocking(client.events_fd, True)
    for n in range(MANY):
        client.observer.tell({"event": "notice", "text": "x" * 100, "n": n})
    heard: list[int] = []

    def read() -> None:
        with open(client.events_fd, "rb", closefd=False) as events:
            heard.extend(json.loads(events.readline())["n"] for _ in range(MANY))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    client.observer.flush_for(60.0)
    reader.join(60)
    assert heard == list(range(MANY))
