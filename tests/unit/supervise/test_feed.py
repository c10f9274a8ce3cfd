"""The launcher's stdin on its way to an agent: a window, a pause, the end for a later one too."""

from __future__ import annotations

import base64
import os
import selectors
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from distrun.supervise import feed
from distrun.supervise.feed import Feed
from tests.conftest import wait_until
from tests.unit.supervise.played import PlayedAgent

WINDOW = feed._WINDOW_NBYTES


class Fed:
    """A feed of some bytes, and what two agents have been sent."""

    def __init__(self, data: bytes) -> None:
        self.file = tempfile.TemporaryFile()
        self.file.write(data)
        self.file.seek(0)
        self.selector = selectors.DefaultSelector()
        self.feed = Feed(self.file.fileno(), self.selector)
        self.agents = [PlayedAgent(0), PlayedAgent(1)]

    def passes(self) -> None:
        """Do what is due."""
        for key, _ in self.selector.select(0) if self.selector.get_map() else ():
            key.data()

    def sent(self, index: int) -> list[bytes]:
        return [base64.b64decode(each["data"]) for each in self.agents[index].told()]

    def close(self) -> None:
        self.file.close()
        for agent in self.agents:
            agent.close()


@pytest.fixture
def fed() -> Iterator[Callable[[bytes], Fed]]:
    made: list[Fed] = []

    def make(data: bytes) -> Fed:
        made.append(Fed(data))
        return made[-1]

    yield make
    for each in made:
        each.close()


def all_sent(it: Fed, index: int) -> Callable[[], Any]:
    """Return a condition that collects what an agent is sent, until the end comes."""
    found: list[bytes] = []

    def condition() -> bytes | None:
        it.passes()
        it.agents[index].seen.talk.flush()
        found.extend(it.sent(index))
        return b"".join(found) if b"" in found else None

    return condition


def test_nothing_is_sent_before_the_rank_has_started(fed: Callable[[bytes], Fed]) -> None:
    it = fed(b"abc")
    it.passes()
    assert it.sent(0) == []
    it.feed.begin(it.agents[0].seen)
    condition = all_sent(it, 0)
    wait_until(condition)


def test_no_more_than_the_window_is_on_its_way(fed: Callable[[bytes], Fed]) -> None:
    it = fed(os.urandom(3 * WINDOW))
    it.feed.begin(it.agents[0].seen)
    nbytes = 0

    def window_is_full() -> bool:
        nonlocal nbytes
        it.passes()
        it.agents[0].seen.talk.flush()
        nbytes += sum(map(len, it.sent(0)))
        return not it.selector.get_map()

    wait_until(window_is_full)
    assert nbytes <= WINDOW
    it.feed.taken(1000)
    assert it.selector.get_map()


def test_after_a_pause_the_next_agent_gets_the_rest_and_the_end(
    fed: Callable[[bytes], Fed],
) -> None:
    it = fed(b"abc")
    it.feed.begin(it.agents[0].seen)
    wait_until(all_sent(it, 0))
    it.feed.pause()
    it.feed.begin(it.agents[1].seen)
    assert it.sent(1) == [b""], "what the first has read is gone; the end is told again"
