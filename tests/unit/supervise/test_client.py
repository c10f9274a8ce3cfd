"""The launcher's end of a supervisor: its events, its silence, its end."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distrun.nodes.handed import Kept
from distrun.runs.directory import RunDirectory
from distrun.supervise.client import SupervisorClient
from tests.unit.echo import Echo


class Played:
    """A supervisor that the test plays."""

    def __init__(self) -> None:
        self.commands_fd, commands_write = os.pipe()
        events_read, self.events_fd = os.pipe()
        self.process = Echo()
        run = RunDirectory(Path("unit-test"))
        self.client = SupervisorClient(
            self.process.process, run, commands_write, events_read, Kept()
        )

    def says(self, data: bytes) -> None:
        os.write(self.events_fd, data)

    def ends(self) -> None:
        self.process.close()
        os.close(self.events_fd)
        self.events_fd = -1

    def close(self) -> None:
        if self.events_fd >= 0:
            self.ends()
            assert list(self.client.events(0.0)) == []
        os.close(self.commands_fd)


@pytest.fixture
def played() -> Iterator[Played]:
    played = Played()
    yield played
    played.close()


def test_events_come_whole_however_they_arrive(played: Played) -> None:
    events = played.client.events(0.05)
    played.says(b'{"event": "a"}\n\n\0{"eve\0nt"')
    assert [next(events), next(events)] == [{"event": "a"}, {}]
    played.says(b': "b"}\n')
    assert next(events) == {"event": "b"}
    played.ends()
    assert list(events) == []
    played.client.signal(15)  # too late, and no fault
    os.set_blocking(played.commands_fd, False)
    assert os.read(played.commands_fd, 100) == b""


def test_events_come_where_there_are_more_files_than_select_takes(played: Played) -> None:
    high = fcntl.fcntl(played.client._events_fd, fcntl.F_DUPFD_CLOEXEC, 1500)
    os.close(played.client._events_fd)
    played.client._events_fd = high
    events = played.client.events(0.05)
    played.says(b'{"event": "a"}\n')
    assert next(events) == {"event": "a"}
    played.ends()
    assert list(events) == []


def test_a_signal_is_a_line_of_the_commands(played: Played) -> None:
    played.client.signal(2)
    assert json.loads(os.read(played.commands_fd, 100)) == {"signal": 2}


def test_a_supervisor_that_says_nothing_is_told_and_then_killed(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distrun.silence.TOLD_AFTER_S", 0.0)
    events = played.client.events(0.0)
    assert next(events) == {"event": "silent"}
    assert next(events) == {}, "it is told once"
    assert played.process.answers() and not played.client.silent
    monkeypatch.setattr("distrun.silence.LOST_AFTER_S", 0.0)
    next(events)
    assert not played.process.answers() and played.client.silent


@pytest.mark.parametrize("word", [b"\n", b"\0", b'{"event": "a"}\n'])
def test_any_word_ends_its_silence(
    played: Played, monkeypatch: pytest.MonkeyPatch, word: bytes
) -> None:
    monkeypatch.setattr("distrun.silence.TOLD_AFTER_S", 0.0)
    events = played.client.events(0.0)
    assert next(events) == {"event": "silent"}
    played.says(word)
    heard: list[dict[str, Any]] = [next(events)]
    while heard[-1] != {"event": "silent"}:  # told again: the count began anew with the word
        heard.append(next(events))
        assert len(heard) < 10
