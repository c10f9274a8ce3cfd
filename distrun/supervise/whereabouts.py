"""Where the ranks are: requests for their stacks, and the answers."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from distrun.supervise.agents import Agent

_ANSWER_S = 5.0


class Answer(NamedTuple):
    """What one rank has answered."""

    stacks: str = ""
    """Its stacks, as faulthandler writes them; "" if it wrote none."""
    state: str = ""
    """The state of its process: a letter of proc(5)."""


class Request:
    """Waits until all live ranks have answered, or are overdue."""

    def __init__(self) -> None:
        self._asked_at: float | None = None
        self._answers: dict[int, Answer] = {}

    def begin(self) -> None:
        """Note that the ranks are asked now."""
        self._asked_at, self._answers = time.monotonic(), {}

    def came(self, rank: int, answer: Answer) -> None:
        """Note the answer of a rank."""
        self._answers[rank] = answer

    def answers(self, live: Collection[int]) -> dict[int, Answer] | None:
        """Return the answer of each live rank, once: when all are there, or are overdue."""
        if self._asked_at is None:
            return None
        if set(live) - self._answers.keys() and time.monotonic() < self._asked_at + _ANSWER_S:
            return None
        self._asked_at = None
        return {rank: self._answers.get(rank, Answer()) for rank in live}


class Whereabouts:
    """Where the ranks of a world are, for whoever asks, and where they were when it was stopped."""

    def __init__(self) -> None:
        self.stacks: dict[int, str] = {}
        """From when the world was stopped."""
        self.of_user = Request()
        """That of `distrun stacks`."""
        self.of_stragglers = Request()
        self._stopped = False

    def ask(self, agents: Sequence[Agent], request: Request) -> None:
        """Ask every live rank where it is, for a request."""
        request.begin()
        _ask(agents)

    def ask_before_stop(self, agents: Sequence[Agent]) -> None:
        """Ask every live rank where it is, before it is stopped: `stacks` has the answers."""
        self._stopped = True
        _ask(agents)

    def came(self, event: Mapping[str, Any]) -> None:
        """Note the answer of a rank."""
        rank, answer = event["rank"], Answer(event["stacks"], event["state"])
        if answer.stacks and self._stopped:
            self.stacks.setdefault(rank, answer.stacks)  # later it is in its handlers
        for request in (self.of_user, self.of_stragglers):
            request.came(rank, answer)


def _ask(agents: Sequence[Agent]) -> None:
    for agent in agents:
        agent.send("stacks")
