"""Signals are passed on; only a supervisor that does not act on a second one is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from distrun.cli import run_to_end
from distrun.cli.run_to_end import _Patience
from distrun.nodes.handed import Kept
from distrun.runs.directory import RunDirectory
from distrun.supervise.client import SupervisorClient
from tests.unit.echo import Echo

INT, TERM, USR1 = (int(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))


class Deaf:
    """A supervisor that hears nothing: a real process behind a real client."""

    def __init__(self) -> None:
        self.commands_fd, commands_write = os.pipe()
        os.set_blocking(self.commands_fd, False)
        events_read, self.events_fd = os.pipe()
        self._fds = [self.commands_fd, commands_write, events_read, self.events_fd]
        self.child = Echo()
        self.client = SupervisorClient(
            self.child.process, RunDirectory(Path("r1")), commands_write, events_read, Kept()
        )

    def close(self) -> None:
        self.child.close()
        for fd in self._fds:
            os.close(fd)


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Deaf]:
    monkeypatch.setattr(run_to_end, "_DEAF_S", 0.0)
    deaf = Deaf()
    yield deaf
    deaf.close()


def test_signals_that_came_before_the_supervisor_are_passed_on(deaf: Deaf) -> None:
    patience = _Patience(interrupts=True)
    patience.on_signal(TERM, None)
    patience.check({})
    patience.attach(deaf.client)
    patience.on_signal(USR1, None)
    assert os.read(deaf.commands_fd, 4096) == b'{"signal": %d}\n{"signal": %d}\n' % (TERM, USR1)


@pytest.mark.parametrize(
    ("signals", "killed"),
    [
        ([INT], False),
        ([TERM], False),
        ([USR1, USR1, USR1], False),
        ([INT, USR1], False),
        ([INT, INT], True),
        ([INT, TERM], True),
    ],
)
def test_one_signal_never_kills_the_supervisor_and_a_second_one_does_if_it_is_deaf(
    deaf: Deaf, signals: list[int], killed: bool
) -> None:
    patience = _Patience(interrupts=True)
    patience.attach(deaf.client)
    for signum in signals:
        patience.on_signal(signum, None)
    patience.check({})
    assert deaf.child.answers() != killed


@pytest.mark.parametrize("answer", ["stopping", "signal_repeated"])
def test_a_supervisor_that_answers_is_not_killed_however_long_it_takes(
    deaf: Deaf, answer: str
) -> None:
    patience = _Patience(interrupts=True)
    patience.attach(deaf.client)
    for signum in (TERM, TERM):
        patience.on_signal(signum, None)
    patience.check({"event": answer})
    patience.check({})
    assert deaf.child.answers()


def test_a_deaf_supervisor_has_a_moment_before_it_is_killed(
    deaf: Deaf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_to_end, "_DEAF_S", 1000.0)
    patience = _Patience(interrupts=True)
    patience.attach(deaf.client)
    for _ in range(3):
        patience.on_signal(INT, None)
        patience.check({})
    assert deaf.child.answers()
    monkeypatch.setattr(run_to_end, "_DEAF_S", 0.0)
    patience.on_signal(INT, None)  # more of them do not put it off, and do not hasten it
    patience.check({})
    assert deaf.child.answers()


def test_while_a_rank_has_the_terminal_no_number_of_ctrl_c_kills_the_supervisor(deaf: Deaf) -> None:
    patience = _Patience(interrupts=False)
    patience.attach(deaf.client)
    for signum in (INT, INT, INT, TERM):
        patience.on_signal(signum, None)
    patience.check({})
    assert deaf.child.answers()
    patience.on_signal(TERM, None)
    patience.check({})
    assert not deaf.child.answers()
