"""How many agents start at once, and the limits of files and pipes that they get."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from distrun.nodes.handed import Handed
from distrun.plan.model import NodePlan
from distrun.processes import LINUX, send, start_time
from distrun.streams import NOTHING_HANDED
from distrun.supervise.agents import Agent
from distrun.supervise.starts import Starts
from tests.unit.supervise.played import plan_of

F_GETPIPE_SZ = 1032
SAY_LIMIT = ("sh", "-c", 'ulimit -Sn >&2; echo "$1" >&2; exec cat', "sh", "a 'b' $c")


class Some:
    """Agents whose command is `cat`, or another."""

    def __init__(
        self,
        nnodes: int,
        command: tuple[str, ...] = ("cat",),
        handed: Mapping[str, Handed] = MappingProxyType({}),
    ) -> None:
        nodes = tuple(NodePlan(i, f"n{i}", "127.0.0.1", {}, command) for i in range(nnodes))
        self.it = Starts("unit-run", Path("/"), dict(os.environ), NOTHING_HANDED, handed)
        self.plan = plan_of(nodes=nodes)
        self.it.begin(self.plan)
        self.agents: list[Agent] = []

    def start_due(self) -> int:
        before = len(self.agents)
        for node in self.it.due(self.agents):
            self.agents.append(self.it.start(node))
        return len(self.agents) - before

    def close(self) -> None:
        for agent in self.agents:
            agent.talk.close()
            send(agent.talk.pid, signal.SIGKILL)
            os.waitpid(agent.talk.pid, 0)


@pytest.fixture
def some() -> Iterator[Any]:
    made: list[Some] = []

    def make(*args: Any) -> Some:
        made.append(Some(*args))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def low_limit() -> Iterator[int]:
    """A soft limit of open files below the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = 512
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
    yield low
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_another_logs_in_when_one_has_said_a_word_or_is_gone(some: Any) -> None:
    starts = some(36)
    assert starts.start_due() == 32
    assert starts.start_due() == 0
    starts.agents[3].pid = 7
    starts.agents[9].gone = True
    assert starts.start_due() == 2
    for agent in starts.agents:
        agent.pid = 7
    assert starts.start_due() == 2
    assert starts.start_due() == 0
    assert [agent.index for agent in starts.agents] == list(range(36))


def said(agent: Agent, lines: int) -> list[str]:
    while agent.talk.words.count(b"\n") < lines:
        assert agent.talk.read_words()
    return agent.talk.last_lines


def test_what_starts_an_agent_has_the_first_limit_and_its_own_arguments(
    some: Any, low_limit: int
) -> None:
    starts = some(1, SAY_LIMIT)
    starts.it.allow_more_files(starts.plan)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > low_limit
    starts.start_due()
    assert said(starts.agents[0], 2) == [str(low_limit), "a 'b' $c"]


def test_the_limit_stays_where_an_agent_is_started_here(some: Any, low_limit: int) -> None:
    starts = some(1, ())
    starts.it.allow_more_files(starts.plan)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == low_limit


def connection(pid: int) -> tuple[Handed, tuple[int, ...]]:
    """Return a connection, and the other ends of its pipes."""
    pipes = [os.pipe() for _ in range(3)]
    (commands, commands_fd), (messages_fd, messages), (words_fd, words) = pipes
    handed = Handed(pid, start_time(pid), commands_fd, messages_fd, words_fd)
    return handed, (commands, messages, words)


def test_a_connection_that_was_handed_on_is_no_log_in(some: Any) -> None:
    with subprocess.Popen("cat", stdin=subprocess.PIPE, start_new_session=True) as client:
        made = [connection(client.pid) for _ in range(3)]
        starts = some(36, ("cat",), {f"n{i}": handed for i, (handed, _) in enumerate(made)})
        assert starts.start_due() == 3 + 32
        for agent in starts.agents[:3]:
            agent.close()
        del starts.agents[:3]
        for _, far in made:
            for fd in far:
                os.close(fd)


def test_a_connection_that_was_handed_on_serves_the_first_attempt_alone(some: Any) -> None:
    with subprocess.Popen("cat", stdin=subprocess.PIPE, start_new_session=True) as client:
        (used, far), (unused, far_unused) = connection(client.pid), connection(client.pid)
        starts = some(1, ("cat",), {"n0": used, "of no node": unused})
        starts.start_due()
        agent = starts.agents.pop()
        assert (agent.talk.pid, agent.is_logging_in) == (client.pid, False)
        assert json.loads(os.read(far[0], 1 << 16))["tag"] == "unit-run/0"
        agent.close()
        assert client.wait(10) == -signal.SIGKILL
    starts.it.begin(starts.plan)
    assert os.read(far_unused[0], 1) == b"", "one that no node has used is closed"
    starts.start_due()
    assert starts.agents[0].handed is None
    for fd in (*far, *far_unused):
        os.close(fd)


@pytest.mark.skipif(not LINUX, reason="the size of a pipe can be set on Linux")
@pytest.mark.parametrize(("nnodes", "nbytes"), [(1, 1 << 20), (16, 1 << 20), (64, 1 << 18)])
def test_the_pipes_of_all_agents_together_hold_16_mib(some: Any, nnodes: int, nbytes: int) -> None:
    starts = some(nnodes)
    starts.start_due()
    assert fcntl.fcntl(starts.agents[0].talk.messages_fd, F_GETPIPE_SZ) == nbytes
