"""How the ranks of a node are stopped: all of them, also one that is stopped itself, in time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from distrun.agent.ending import Ending
from distrun.agent.rank import Rank
from distrun.streams import NOTHING_HANDED
from tests.conftest import wait_until

TERM = int(signal.SIGTERM)
SAVES = """
import os, signal
def save(signum, frame):
    os.write(1, b"saved")
    os._exit(7)
signal.signal(signal.SIGTERM, save)
os.write(1, b"ready")
while True:
    signal.pause()
"""


class Started:
    """An ending, one rank that saves on SIGTERM, and what was told."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", SAVES], stdout=subprocess.PIPE, start_new_session=True
        )
        self.rank = Rank(0, apart=False)
        self._fds = self.rank.open(NOTHING_HANDED.handed_fds)
        self.rank.pid = self.process.pid
        self.told: list[str] = []
        # As if all ranks were below the forkserver: no process of this test is a leftover.
        own = [os.getpid()]
        self.ending = Ending("unit-test/0", lambda: own, lambda name, **_: self.told.append(name))
        assert self.process.stdout and self.process.stdout.read(5) == b"ready"

    def stop_process(self) -> None:
        """Stop it, as SIGSTOP from a shell does."""
        os.kill(self.process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.rank.close()
        for fd in self._fds:
            os.close(fd)


@pytest.fixture
def started() -> Iterator[Callable[[], Started]]:
    made: list[Started] = []

    def start() -> Started:
        made.append(Started())
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_a_rank_that_is_stopped_is_continued_so_that_it_can_save(
    started: Callable[[], Started],
) -> None:
    it = started()
    it.stop_process()
    it.ending.stop(TERM, 60.0, [it.rank])
    assert it.process.communicate(timeout=30)[0] == b"saved"
    assert it.process.returncode == 7


def test_a_second_stop_gives_no_more_time(started: Callable[[], Started]) -> None:
    it = started()
    it.ending.stop(signal.SIGURG, 0.0, [it.rank])  # which it does not even notice
    it.ending.stop(signal.SIGURG, 1000.0, [it.rank])
    it.ending.on_time([it.rank])
    assert it.process.communicate(timeout=20)[0] == b"", "it was killed, and saved nothing"


def test_it_is_over_when_no_rank_lives_and_the_supervisor_lets_go(
    started: Callable[[], Started],
) -> None:
    it = started()
    it.ending.stop(TERM, 60.0, [it.rank])
    it.ending.on_time([it.rank])
    assert not it.ending.stopped and it.told == []
    it.ending.on_time([])
    assert it.ending.stopped and it.told == ["node_stopped"]
    it.ending.on_time([])
    assert not it.ending.over and it.told == ["node_stopped"], "told once"
    it.ending.leave(0.0)
    wait_until(lambda: it.ending.on_time([]) or it.ending.over)


def test_when_it_wants_to_look_again(started: Callable[[], Started]) -> None:
    it = started()
    assert list(it.ending.due()) == [], "as long as nobody ends anything"
    it.ending.stop(signal.SIGURG, 1000.0, [it.rank])
    kill_at, look_at = it.ending.due()
    assert look_at < kill_at
    it.ending.on_time([])
    assert list(it.ending.due()) == [kill_at], "of what may still come"
    it.ending.leave(5.0)
    assert list(it.ending.due())[-1] == 0.0, "nothing lingers"
