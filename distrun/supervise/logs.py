"""The logs of a run: one a rank, with all attempts, and what each agent itself has said."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import groupby
from typing import Any

from distrun.runs.directory import RunDirectory
from distrun.supervise.files import AppendFile
from distrun.supervise.rank_log import RankLog

_AGENT_LOG_NBYTES = 16 << 20


class Logs:
    """The open logs; each is opened when it is first needed.

    Args:
        run: The run.
        max_nbytes: The size at which a rank's log is rotated; 0 for never.
        complain: Called with a message when a log cannot be written.
    """

    def __init__(self, run: RunDirectory, max_nbytes: int, complain: Callable[[str], None]) -> None:
        self._run = run
        self._max_nbytes = max_nbytes
        self._complain = complain
        self._ranks: dict[tuple[int, int], RankLog] = {}
        self._agents: dict[int, AppendFile] = {}

    def of_rank(self, node: int, rank: int) -> RankLog:
        """Return a rank's log, by the numbers of its node and its own."""
        key = (node, rank)
        if key not in self._ranks:
            files = self._run.log(*key), self._run.streams(*key)
            self._ranks[key] = RankLog(*files, self._complain, self._max_nbytes)
        return self._ranks[key]

    def of_agent(self, node: int) -> AppendFile:
        """Return the log of a node's agent, in which a full disk is not reported."""
        if node not in self._agents:
            path = self._run.agent_log(node)
            self._agents[node] = AppendFile(path, lambda _: None, _AGENT_LOG_NBYTES)
        return self._agents[node]

    def mark(self, text: str, nodes: Collection[int]) -> None:
        """Write a line of ours into the logs of these nodes' ranks, of an earlier launch too."""
        for key in self._run.rank_logs():
            self.of_rank(*key)
        for (node, _), log in self._ranks.items():
            if node in nodes:
                log.say(text)

    def close(self) -> None:
        """Close all."""
        logs: list[RankLog | AppendFile] = [*self._ranks.values(), *self._agents.values()]
        for log in logs:
            log.close()


def joined(
    messages: Iterable[tuple[dict[str, Any], memoryview]],
) -> Iterator[tuple[dict[str, Any], memoryview]]:
    """Yield messages; what a rank's stream printed in several, one after the other, as one.

    A rank that flushes each line sends a message for each, and a write for each costs the most.
    """
    for (name, *_), group in groupby(messages, _stream_of):
        if name != "output":
            yield from group
            continue
        (event, data), *others = group
        yield event, memoryview(b"".join((data, *(d for _, d in others)))) if others else data


def _stream_of(message: tuple[dict[str, Any], memoryview]) -> tuple[object, ...]:
    event = message[0]
    return event.get("event"), event.get("rank"), event.get("stream")
